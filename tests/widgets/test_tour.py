"""A newcomer's tour through the real viewer: five flows, each from opening an image to what is kept of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "examples" / "tour"


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["2d", "3d", "time-lapse", "mri", "super-resolution"])
def test_nothing_trips_a_newcomer(flow, tmp_path):
    # A process of its own, with no settings of napari or of the plugin yet.
    fresh = {**os.environ, "NAPARI_CONFIG": str(tmp_path / "napari.yaml")}
    fresh |= dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(tmp_path))
    done = subprocess.run(
        [sys.executable, str(TOUR), flow], capture_output=True, text=True, check=False, cwd=tmp_path, env=fresh
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{flow} (dark): passed" in done.stdout
