"""How answers depend on where and what things are, and on there being a picture."""
