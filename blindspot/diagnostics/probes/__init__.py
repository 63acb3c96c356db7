"""What can be read at each stage."""
