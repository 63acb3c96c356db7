"""Studies of real size (``kind: llava``): what they say, cost and need. Importing this loads no torch."""
