"""One picture and one question of the user's own: where in the picture and in the model the answer comes from."""
