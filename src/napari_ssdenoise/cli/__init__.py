"""The ``ssdenoise`` command; one module per verb, loaded when it is asked for."""

from __future__ import annotations

from napari_ssdenoise.cli._program import main, program

__all__ = ["main", "program"]
