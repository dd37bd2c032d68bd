"""K-space in a real viewer: opened, reconstructed, stopped, and refused where it is none."""

from __future__ import annotations

import shlex
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from qtpy.QtWidgets import QApplication, QFileDialog
from scipy.io import savemat

from napari_ssdenoise.cli import program
from napari_ssdenoise.io import kspace as kspace_module
from napari_ssdenoise.io.kspace import open_kspace
from napari_ssdenoise.reconstruction import reconstruct
from napari_ssdenoise.volume import open_volume
from napari_ssdenoise.widgets import files
from napari_ssdenoise.widgets._kspace import LogMagnitude
from napari_ssdenoise.widgets.files import kspace_reader
from napari_ssdenoise.widgets.mri import ReconstructWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 120_000  # ms


@pytest.fixture
def kspace() -> Any:
    """Return the k-space of a disc seen by four coils, a third of its lines and its middle."""
    y, x = np.meshgrid(*(2 * (np.arange(n) - n // 2) / n for n in (48, 40)), indexing="ij")
    image = 1.0 * (np.hypot(y, x) < 0.7) - 0.5 * (np.hypot(y - 0.2, x) < 0.2)
    maps = np.stack([np.exp(-(np.square(y - a) + np.square(x - b)) / 2) for a in (-1, 1) for b in (-1, 1)])
    full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, (1, 2)), norm="ortho"), (1, 2))
    mask = np.zeros(48, bool)
    mask[16:32] = mask[::3] = True
    return (full * mask[:, None]).astype(np.complex64)


@pytest.fixture
def open_widget(viewer: Any, qtbot: Any) -> Iterator[Callable[[], ReconstructWidget]]:
    opened: list[ReconstructWidget] = []

    def make() -> ReconstructWidget:
        widget = ReconstructWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Reconstruct MRI", area="right")
        opened.append(widget)
        return widget

    yield make
    while opened:
        widget = opened.pop()
        with suppress(RuntimeError):
            widget.stop()
            qtbot.waitUntil(lambda widget=widget: not widget.busy, timeout=PATIENCE)
            widget.shut_down()
            viewer.window.remove_dock_widget(widget)
            widget.deleteLater()
    living = ReconstructWidget
    qtbot.waitUntil(lambda: not any(isinstance(w, living) for w in QApplication.allWidgets()), timeout=10_000)


def test_kspace_becomes_image_maps_and_mask(
    open_widget: Callable[[], ReconstructWidget], viewer: Any, qtbot: Any, kspace: Any
) -> None:
    widget = open_widget()
    assert not widget.run.run.isEnabled()
    widget.show_kspace(open_kspace(np.stack([kspace] * 2), name="knee"))
    assert "2 slices, 4 coils, 48 x 40" in widget.run.check.text()
    widget.run.run.click()
    assert widget.busy
    assert not widget.run.run.isEnabled()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    names = [layer.name for layer in viewer.layers]
    assert names == ["knee k-space", "knee coil maps", "knee sampling mask", "knee phase", "knee magnitude"]
    assert [layer.visible for layer in viewer.layers] == [False] * 4 + [True]
    expected = reconstruct(np.stack([kspace] * 2)).image
    np.testing.assert_allclose(viewer.layers["knee magnitude"].data, np.abs(expected), rtol=1e-3, atol=1e-4)
    whole = viewer.layers["knee magnitude"].metadata["complex"]["data"]
    np.testing.assert_allclose(np.abs(whole), viewer.layers["knee magnitude"].data, rtol=1e-5)
    assert viewer.layers["knee coil maps"].data.shape == (2, 4, 48, 40)
    assert "CG-SENSE" in widget.run.table.text()


def test_a_run_is_stopped(open_widget: Callable[[], ReconstructWidget], viewer: Any, qtbot: Any, kspace: Any) -> None:
    widget = open_widget()
    widget.show_kspace(open_kspace(kspace))
    widget.choose("zs-ssdu", 100_000)
    widget.reconstruct()
    qtbot.waitUntil(lambda: "learning" in widget.run.status.text().lower(), timeout=PATIENCE)
    widget.run.stop.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=10_000)
    assert "Stopped" in widget.run.status.text()
    assert len(viewer.layers) == 1


def test_images_are_refused_and_complex_layers_are_kspace(
    open_widget: Callable[[], ReconstructWidget], viewer: Any, kspace: Any
) -> None:
    widget = open_widget()
    viewer.add_image(np.ones((20, 30)), name="picture")
    assert "is an image, not k-space" in widget.run.check.text()
    assert not widget.run.run.isEnabled()
    viewer.add_image(np.abs(kspace), metadata={"complex": {"part": "magnitude", "data": kspace}})
    assert "4 coils, 48 x 40" in widget.run.check.text()


def test_files_are_opened_by_the_button_and_the_reader(
    open_widget: Callable[[], ReconstructWidget],
    viewer: Any,
    qtbot: Any,
    kspace: Any,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = kspace[None]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume"] = np.zeros((3, 4))
    assert kspace_reader(str(tmp_path / "other.h5")) is None
    reader = kspace_reader(str(tmp_path / "scan.h5"))
    assert reader is not None
    (layer,) = reader(str(tmp_path / "scan.h5"))
    assert layer[0].shape == (48, 40)
    widget = open_widget()
    threads = []
    original = kspace_module.open_kspace
    monkeypatch.setattr(
        kspace_module,
        "open_kspace",
        lambda *source, **how: (threads.append(threading.current_thread()), original(*source, **how))[1],
    )
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "scan.h5"), ""))
    widget.open.click()
    assert widget.busy
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    assert threads[0] is not threading.main_thread(), "large files would freeze the viewer"
    assert viewer.layers[0].name == "scan k-space"
    assert "Ready: 1 slice, 4 coils" in widget.run.check.text()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "other.h5"), ""))
    widget.open.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    assert "has no array 'kspace'" in widget.run.status.text()


def test_arrays_of_matlab_are_opened_or_their_axes_asked_for(kspace: Any, tmp_path: Path, monkeypatch: Any) -> None:
    said: list[str] = []
    savemat(tmp_path / "good.mat", {"kdata": kspace})
    savemat(tmp_path / "turned.mat", {"kdata": np.moveaxis(kspace, 0, -1)})
    reader = kspace_reader(str(tmp_path / "good.mat"))
    assert reader is not None
    (layer,) = reader(str(tmp_path / "good.mat"))
    assert layer[0].shape == (48, 40)
    assert layer[1]["name"] == "good kdata k-space"
    monkeypatch.setattr(files, "show_error", said.append)
    assert reader(str(tmp_path / "turned.mat")) == files.NOTHING
    assert "transposed" in said[0]
    assert "In napari, Reconstruct MRI opens it" in said[0]


@pytest.mark.parametrize(("method", "steps", "kind"), [("auto", 0, "command"), ("zs-ssdu", 2, "python")])
def test_what_is_copied_makes_the_same_pixels(
    open_widget: Callable[[], ReconstructWidget],
    viewer: Any,
    qtbot: Any,
    kspace: Any,
    tmp_path: Path,
    method: str,
    steps: int,
    kind: str,
    as_program: Any,
) -> None:
    np.save(tmp_path / "my scan.npy", kspace.transpose(1, 2, 0))
    widget = open_widget()
    widget.axes.setText("yxc")
    widget.open_file(tmp_path / "my scan.npy")
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    widget.choose(method, steps)
    widget.reconstruct()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    shown = np.asarray(viewer.layers["my scan magnitude"].data)
    widget.copy_as(kind)
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    copied = QApplication.clipboard().text()
    if kind == "command":
        words = shlex.split(copied)
        assert words[:2] == ["ssdenoise", "reconstruct"]
        assert "--axes" in words
        result = as_program(CliRunner().invoke, program, words[1:], prog_name="ssdenoise", catch_exceptions=False)
        assert result.exit_code == 0, result.output
    else:
        as_program(exec, compile(copied, "copied", "exec"), {})
    np.testing.assert_array_equal(np.asarray(open_volume(tmp_path / "my scan.reconstructed.nii.gz")), shown)


def test_what_is_in_no_file_cannot_be_copied(
    open_widget: Callable[[], ReconstructWidget], qtbot: Any, kspace: Any
) -> None:
    widget = open_widget()
    widget.show_kspace(open_kspace(kspace, name="mine"))
    assert not widget.run.copy_as.isEnabled()
    widget.choose("zero-filled")
    widget.reconstruct()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    assert widget.run.copy_as.isEnabled()
    widget.copy_as("command")
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    assert "“mine” is not in a file" in widget.run.status.text()


def test_samples_that_the_mask_leaves_out_are_not_shown(kspace: Any) -> None:
    columns = np.arange(40) > 20
    shown = np.asarray(LogMagnitude(open_kspace(kspace, mask=columns)))
    assert (shown[:, :21] == shown.min()).all()
    assert shown[24, 25] > shown.min()


def test_slices_are_shown_as_any_array_is_sliced(kspace: Any) -> None:
    shown = LogMagnitude(open_kspace(np.stack([kspace, 2 * kspace, kspace])))
    whole = np.asarray(shown)
    assert whole.shape == shown.shape == (3, 48, 40)
    assert whole.max() == 0
    for key in (1, (1, slice(3, 9)), slice(0, 2), (slice(None), 4), (slice(0, 3, 2), slice(5), 7)):
        np.testing.assert_array_equal(shown[key], whole[key])
