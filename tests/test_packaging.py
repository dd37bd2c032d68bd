"""The manifest and the metadata as they are installed."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import napari_ssdenoise

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "napari.yaml"
NAME = "napari-ssdenoise"

# Menus that napari fills from manifests; a name that is not among them is silently ignored.
MENUS = {"napari/layers/filter", "napari/layers/measure", "napari/layers/transform"}
SECTIONS = {"commands", "widgets", "menus", "sample_data", "readers", "writers"}


@pytest.fixture(scope="module")
def installed():
    try:
        return distribution(NAME)
    except PackageNotFoundError:
        pytest.skip(f"{NAME} is not installed: pip install -e .")


@pytest.fixture(scope="module")
def manifest():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def commands(manifest):
    return {command["id"]: command["python_name"] for command in manifest["contributions"]["commands"]}


@pytest.mark.usefixtures("installed")
def test_installed_manifest_is_the_one_at_the_root():
    assert Path(napari_ssdenoise.__file__).with_name("napari.yaml").read_bytes() == MANIFEST.read_bytes()


def test_manifest_has_only_sections_that_napari_reads(manifest):
    assert manifest["name"] == NAME
    assert set(manifest["contributions"]) <= SECTIONS
    assert set(manifest["contributions"]["menus"]) <= MENUS


def test_every_command_that_is_used_is_defined(manifest):
    contributions = manifest["contributions"]
    defined = commands(manifest)
    used = [item["command"] for section in (SECTIONS - {"commands", "menus"}) for item in contributions[section]]
    used += [item["command"] for items in contributions["menus"].values() for item in items]
    assert set(used) == set(defined)
    assert all(command.startswith(f"{NAME}.") for command in defined)


def test_sample_data_of_the_manifest_are_the_samples_of_the_package(manifest):
    pytest.importorskip("numpy")
    from napari_ssdenoise.samples import SAMPLES

    assert [item["key"] for item in manifest["contributions"]["sample_data"]] == list(SAMPLES)


@pytest.mark.filterwarnings("ignore")  # of third parties, while Qt and the viewer are imported
def test_every_python_name_imports(manifest):
    for needed in ("torch", "napari"):
        if find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    pytest.importorskip("qtpy.QtWidgets", reason="needs a Qt binding", exc_type=ImportError)
    for python_name in commands(manifest).values():
        module, _, attribute = python_name.partition(":")
        assert callable(getattr(import_module(module), attribute))


@pytest.mark.usefixtures("installed")
def test_npe2_finds_the_installed_manifest():
    npe2 = pytest.importorskip("npe2")
    found = {result.manifest.name: result.manifest for result in npe2.PluginManifest.discover() if result.manifest}
    assert NAME in found
    assert found[NAME].package_version == napari_ssdenoise.__version__
    assert found[NAME].contributions.widgets
    assert not [result for result in npe2.PluginManifest.discover() if result.distribution is None and result.error]


@pytest.mark.usefixtures("installed")
def test_console_script():
    (script,) = entry_points(group="console_scripts", name="ssdenoise")
    assert script.value == "napari_ssdenoise.cli:main"
    pytest.importorskip("click")
    assert callable(script.load())


def test_types_are_shipped():
    package = Path(napari_ssdenoise.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "__init__.pyi").is_file()


def test_base_dependencies_hold_no_qt_binding_and_no_viewer(installed):
    base = {re.split(r"[^\w-]", line)[0].lower() for line in installed.requires if "extra ==" not in line}
    assert not base & {"napari", "pyqt5", "pyqt6", "pyside2", "pyside6", "torchvision", "lightning"}


def test_lowest_environment_installs_the_lower_bounds(installed):
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)$", "\n".join(installed.requires), flags=re.M))
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), flags=re.M))
    # No CPU build of the lowest torch is at hand everywhere.
    del bounds["torch"], pins["torch"]
    assert pins == bounds
