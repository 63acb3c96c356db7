"""Whether answers turn with the picture and agree with themselves."""
