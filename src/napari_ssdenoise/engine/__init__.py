"""Patches in, steps out; tiles in, pixels out."""
