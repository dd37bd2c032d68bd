"""Fixtures that many tests share, and the rule that tests of the widgets need a viewer."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDGET_TESTS = Path(__file__).parent / "widgets"
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


@cache
def missing_gui() -> str:
    """Say what the widget tests lack, without importing any of it; empty if nothing."""
    if find_spec("napari") is None:
        return "napari is not installed"
    if not any(find_spec(binding) for binding in QT_BINDINGS):
        return "no Qt binding is installed"
    return "" if find_spec("pytestqt") else "pytest-qt is not installed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-cases", type=int, default=400, help="how many damaged inputs tests/fuzz tries")
    parser.addoption("--fuzz-first", type=int, default=0, help="the number of the first of them")


def pytest_report_header() -> str:
    return f"widget tests: left out ({missing_gui()})" if missing_gui() else "widget tests: run"


def pytest_configure() -> None:
    if os.environ.get("SSDENOISE_REQUIRE_GUI") and missing_gui():
        raise pytest.UsageError(f"SSDENOISE_REQUIRE_GUI is set, but {missing_gui()}.")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out tests/widgets where it could not even be imported."""
    inside = collection_path == WIDGET_TESTS or WIDGET_TESTS in collection_path.parents
    return True if inside and missing_gui() else None


@pytest.fixture
def rng() -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture
def clean_image() -> NDArray[np.float32]:
    """Return smooth structure in about [0, 1], (64, 64)."""
    import numpy as np

    y, x = np.mgrid[:64, :64].astype(np.float32)
    return 0.5 + 0.25 * np.sin(x / 5) * np.cos(y / 7) + 0.25 * np.sin((x + y) / 9)


@pytest.fixture
def noisy_image(clean_image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return ``clean_image`` with independent Gaussian noise of standard deviation 0.2."""
    return clean_image + rng.normal(0, 0.2, clean_image.shape).astype("float32")
