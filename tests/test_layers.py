"""What may import what: the engine knows no Qt, and the package itself loads no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import napari_ssdenoise

ROOT = Path(napari_ssdenoise.__file__).parent
GUI = {"napari", "qtpy", "magicgui", "superqt", "pyqtgraph", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6"}
MODULES = sorted(p for p in ROOT.rglob("*.py") if "widgets" not in p.relative_to(ROOT).parts)
# Imported before torch is, so that a form opens and a file is looked at without waiting for it.
LIGHT = ("axes", "volume", "samples", "metrics", "diagnosis", "quality", "io", "cli", "widgets.sample_data")


def module_name(path: Path) -> str:
    parts = ("napari_ssdenoise", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_after(*statements: str) -> set[str]:
    """Run statements in a fresh Python and return the top-level packages it has loaded."""
    code = "\n".join([*statements, "import sys", "print(*{name.partition('.')[0] for name in sys.modules})"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def imported_names(path: Path) -> set[str]:
    """Return the top-level packages a file names in any import, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_importing_the_package_loads_neither_torch_nor_qt():
    loaded = loaded_after("import napari_ssdenoise", "napari_ssdenoise.__version__", "dir(napari_ssdenoise)")
    assert not loaded & (GUI | {"torch", "numpy"})


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_load_no_torch(name):
    assert not loaded_after(f"import napari_ssdenoise.{name}") & (GUI | {"torch"})


def test_only_widgets_load_qt_or_the_viewer():
    loaded = loaded_after(*(f"import {module_name(path)}" for path in MODULES if path.name != "__main__.py"))
    assert not loaded & GUI


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_import_of_qt_hides_in_a_function(path):
    assert not imported_names(path) & GUI


def test_nothing_depends_on_torchvision_or_lightning():
    assert not [path for path in ROOT.rglob("*.py") if imported_names(path) & {"torchvision", "lightning"}]


def test_public_names_exist_and_the_stub_agrees():
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    declared = {
        alias.asname: f"{node.module}" for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    homes = {name: f"napari_ssdenoise.{home}" for name, home in napari_ssdenoise._HOME.items()}
    assert declared == homes
    assert set(napari_ssdenoise.__all__) == {*homes, "__version__"} <= set(dir(napari_ssdenoise))
    for name in napari_ssdenoise.__all__:
        assert getattr(napari_ssdenoise, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Noise3Void'"):
        napari_ssdenoise.Noise3Void  # noqa: B018
