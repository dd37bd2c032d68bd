"""Pure functions of tensors: the arithmetic of the methods."""
