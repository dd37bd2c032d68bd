"""The form opens without torch."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from napari_ssdenoise.widgets import denoise, enough
from napari_ssdenoise.widgets._form import SettingsForm
from napari_ssdenoise.algorithms import get_algorithm
get_algorithm("n2v", struct_mask="11111")
print("torch" in sys.modules, "pyqtgraph" in sys.modules)
"""


def test_importing_the_widget_loads_neither_torch_nor_the_plot():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False"]
