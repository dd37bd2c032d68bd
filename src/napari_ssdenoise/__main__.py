"""Run the command line as ``python -m napari_ssdenoise``."""

from __future__ import annotations

from napari_ssdenoise.cli._program import main

main()
