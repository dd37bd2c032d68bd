"""Network modules, one code path for 2D and 3D."""
