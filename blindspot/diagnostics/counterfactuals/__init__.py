"""What answers follow when content, ids and encoder positions are moved apart."""
