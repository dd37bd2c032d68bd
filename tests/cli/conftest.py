"""Small images, a small network, and the program run in this process."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from napari_ssdenoise.cli import program
from napari_ssdenoise.io import write_volume
from napari_ssdenoise.volume import Volume

# A network that trains in no time, and computes the same on every processor.
TINY = ("--width", "4", "--depth", "1", "--patch", "16", "--batch", "2", "--precision", "float32")

Run = Callable[..., Result]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny computations from being shared out among threads, which costs more than it brings on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs ``ssdenoise`` with arguments in a folder of its own, and checks the exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(program, [str(a) for a in arguments], prog_name="ssdenoise")
        assert result.exit_code == code, (result.output, result.exception)
        if code == 1:
            assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def last_json() -> Callable[[Result], dict[str, Any]]:
    """Return a function that reads the last line of standard output, as a script would."""
    return lambda result: json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture
def stop_at() -> Callable[[int, pytest.MonkeyPatch], None]:
    """Return a function that has Ctrl-C pressed while a step is computed."""
    from napari_ssdenoise.engine.trainer import Trainer

    original = Trainer._learning_rate

    def patch(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(self):
            if self.step == step - 1:
                signal.raise_signal(signal.SIGINT)
            return original(self)

        monkeypatch.setattr(Trainer, "_learning_rate", interrupted)

    return patch


@pytest.fixture
def noisy(tmp_path: Path, noisy_image: np.ndarray) -> Path:
    """Write a noisy image (Y, X) with a pixel size."""
    image = Volume(noisy_image, "YX", (0.2, 0.2), ("micrometer", "micrometer"))
    return write_volume(tmp_path / "noisy.tif", image)


@pytest.fixture
def clean(tmp_path: Path, clean_image: np.ndarray) -> Path:
    return write_volume(tmp_path / "clean.tif", Volume(clean_image, "YX"))


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train one model for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    y, x = np.mgrid[:64, :64]
    image = 0.5 + 0.4 * np.sin(x / 5) * np.cos(y / 7) + np.random.default_rng(0).normal(0, 0.2, (64, 64))
    write_volume(folder / "noisy.tif", Volume(image.astype(np.float32), "YX"))
    arguments = ("train", folder / "noisy.tif", "-o", folder / "x.model", "--steps", 3, *TINY)
    assert CliRunner().invoke(program, [str(a) for a in arguments]).exit_code == 0
    return folder / "x.model"


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "x.model"))


@pytest.fixture(autouse=True)
def _ctrl_c_works():
    """Undo that a background shell makes its programs, and theirs, deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
