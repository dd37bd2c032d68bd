"""Five flows: each opens an image, learns from it, and keeps what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from guide import PLUGIN, Guide
from napari.layers import Layer
from phantom import write_kspace, write_scan

import napari_ssdenoise as ssd

# For a tour in a minute: networks that train in no time, whatever they learn.
SMALL = {"depth": 1, "width": 4, "patch": 16, "batch": 2}
STEPS = 6
MINUTES = 0.75  # of a full tour's trainings
PREVIEW = "ssdenoise preview"


@dataclass(frozen=True)
class Denoising:
    """What is different in the flows that denoise.

    Parameters
    ----------
    size
        How much of the image a quick tour takes, from its middle.
    zoom
        How close to look.
    suffix
        Of the format in which many images are saved.
    """

    size: tuple[int, ...]
    zoom: float = 1.0
    suffix: str = "tif"


def plane(guide: Guide) -> None:
    """Denoise a plane of a cell."""
    noisy, clean = guide.open_sample("cell-2d")[::-1]
    denoise(guide, noisy, clean, Denoising((96, 96), zoom=1.8))


def stack(guide: Guide) -> None:
    """Denoise a stack of a tissue."""
    noisy, clean = guide.open_sample("tissue-3d")[::-1]
    denoise(guide, noisy, clean, Denoising((12, 48, 48), suffix="ome.zarr"))


def film(guide: Guide) -> None:
    """Denoise a film of a cell."""
    noisy, clean = guide.open_sample("timelapse")[::-1]
    denoise(guide, noisy, clean, Denoising((8, 64, 64), suffix="ome.tif"))


def scan(guide: Guide) -> None:
    """Denoise magnitudes of an MRI scan, then make such images of k-space."""
    shape = (24, 192, 160) if guide.full else (12, 64, 64)
    path = guide.folder / "head.nii.gz"
    truth = write_scan(path, *shape)
    (noisy,) = guide.viewer.open(path, plugin=PLUGIN)
    place = {"scale": noisy.scale, "units": noisy.units, "axis_labels": noisy.axis_labels}
    clean = guide.viewer.add_image(truth, name="truth", visible=False, **place)
    denoise(guide, noisy, clean, Denoising(shape, suffix="nii.gz"))
    guide.viewer.layers.clear()
    reconstruct(guide)


def denoise(guide: Guide, noisy: Any, clean: Any, flow: Denoising) -> None:
    """Diagnose, train, watch, apply, save, load again, denoise many, export."""
    if not guide.full:
        clean, noisy = (smaller(guide, layer, flow.size) for layer in (clean, noisy))
    guide.viewer.layers.selection.active = noisy
    if noisy.ndim > 2:
        guide.viewer.dims.set_current_step(0, len(noisy.data) // 2)
    guide.closer(noisy, flow.zoom)
    widget = guide.dock("Denoise")
    guide.look("open", widget)
    diagnose(guide, widget)
    train(guide, widget)
    result = apply(guide, widget, noisy)
    if guide.full:
        before, after = (ssd.psnr(layer.data, clean.data) for layer in (noisy, result))
        print(f"{guide.name}: {before:.1f} dB, denoised {after:.1f} dB")
        assert after > before + 1
    keep(guide, widget, noisy)
    compare(guide, noisy, result)
    many(guide, noisy, flow.suffix)


def diagnose(guide: Guide, widget: Any) -> None:
    """Look at the noise, and take the method that is recommended."""
    guide.click(widget.method.diagnose)
    guide.finish(widget)
    guide.look("diagnosis", widget)
    recommended = widget.method.diagnosis.report.algorithm
    guide.click(widget.method.diagnosis.button)
    assert widget.method.algorithm == recommended
    if not guide.full:
        widget.method.form.set_values({k: v for k, v in SMALL.items() if k in widget.method.form.fields})


def train(guide: Guide, widget: Any) -> None:
    """Train, and watch the preview."""
    if guide.full:
        widget.method.length.minutes.setValue(MINUTES)
    else:
        widget.method.length.set_steps(STEPS)
    guide.pause(0.3)
    guide.film.begin()
    guide.film.take(guide.viewer)
    guide.click(widget.run.train)
    guide.wait(lambda: previews(guide) or not widget.busy, "a preview")
    if guide.full:
        guide.wait(lambda: widget.run.bar.value() > 500 or not widget.busy, "half of the training")
        guide.look("training", widget)
    guide.finish(widget)
    assert widget.model is not None, widget.run.status.text()
    assert previews(guide), "no preview was shown"
    guide.look("trained", widget)


def apply(guide: Guide, widget: Any, noisy: Any) -> Any:
    """Denoise the layer into another one."""
    guide.click(widget.run.apply)
    guide.finish(widget)
    result = guide.layer(f"{noisy.name} denoised")
    assert np.isfinite(result.data).all()
    assert result.data.shape == noisy.data.shape
    guide.look("applied", widget)
    guide.film.take(guide.viewer)
    guide.film.end()
    return result


def keep(guide: Guide, widget: Any, noisy: Any) -> None:
    """Save the model, find it in the list of saved ones, use it again, and export it."""
    path = guide.folder / "models" / "mine.model.zip"
    path.parent.mkdir()
    with guide.answering("getSaveFileName", path):
        guide.click(widget.run.save)
        guide.finish(widget)
    assert path.exists(), widget.run.status.text()
    models = widget.models
    with guide.answering("getExistingDirectory", path.parent):
        models.section.expand(animate=False)
        guide.click(models.choose)
    guide.finish(widget)
    models.list.setCurrentRow(0)
    assert models.chosen.name == "mine"
    guide.look("models", widget)
    guide.click(models.load_button)
    guide.finish(widget)
    assert "Loaded" in widget.run.status.text()
    models.section.collapse(animate=False)
    out = guide.folder / "clean.ome.zarr"
    with guide.answering("getSaveFileName", out):
        guide.click(widget.run.apply_to_file)
    guide.finish(widget)
    assert ssd.open_volume(out).shape == noisy.data.shape
    if find_spec("bioimageio") and guide.name == "2d":
        widget.model.export_bioimage(guide.folder / "zoo.zip", sample=noisy.data, authors=["Ada Lovelace"])
        assert ssd.TrainedModel.load(guide.folder / "zoo.zip").geometry == widget.model.geometry
    guide.undock(widget)


def compare(guide: Guide, noisy: Any, result: Any) -> None:
    """Look at both sides of a slider, and at what was taken away."""
    for layer in list(guide.viewer.layers):
        layer.visible = layer in (noisy, result)
    widget = guide.dock("Compare")
    widget.before.set_layer(noisy)
    widget.after.set_layer(result)
    widget.split.setChecked(True)
    guide.look("compare", widget)
    widget.split.setChecked(False)
    guide.click(widget.residual)
    guide.look("residual", widget)
    guide.undock(widget)


def many(guide: Guide, noisy: Any, suffix: str) -> None:
    """Denoise files and a layer with the saved model."""
    folder, out = guide.folder / "many", guide.folder / "results"
    folder.mkdir()
    for name in ("first", "second"):
        np.save(folder / f"{name}.npy", np.asarray(noisy.data))
    guide.viewer.layers.selection.active = noisy
    widget = guide.dock("Denoise many")
    with guide.answering("getExistingDirectory", folder):
        guide.click(widget.images.folder)
    guide.click(widget.images.layers)
    widget.model_box.setCurrentIndex(widget.model_box.findData("saved"))
    with guide.answering("getOpenFileName", guide.folder / "models" / "mine.model.zip"):
        guide.click(guide.button("Browse…", widget.model_path.parentWidget()))
    with guide.answering("getExistingDirectory", out):
        guide.click(widget.output.browse)
    widget.output.format_box.setCurrentIndex(widget.output.format_box.findData(suffix))
    guide.look("many", widget)
    guide.click(widget.run.run)
    guide.finish(widget)
    guide.look("many-done", widget)
    assert "3 of 3 images denoised" in widget.run.status.text(), widget.run.status.text()
    assert len([path for path in out.iterdir() if path.name.endswith(f".denoised.{suffix}")]) == 3
    guide.undock(widget)


def reconstruct(guide: Guide) -> None:
    """Make images of k-space of which lines were skipped."""
    path = guide.folder / "scan.h5"
    write_kspace(path, 1, *((192, 160) if guide.full else (48, 40)))
    guide.viewer.open(path, plugin=PLUGIN)
    widget = guide.dock("Reconstruct MRI")
    guide.look("kspace", widget)
    widget.choose("auto" if guide.full else "cg-sense")
    guide.click(widget.run.run)
    guide.finish(widget)
    guide.look("reconstructed", widget)
    image = guide.layer("scan magnitude")
    saved = guide.viewer.layers.save(str(guide.folder / "scan.nii.gz"), selected=True, plugin=PLUGIN)
    assert [ssd.open_volume(Path(name)).shape[-2:] for name in saved] == [image.data.shape[-2:]]
    guide.undock(widget)


def sharpen(guide: Guide) -> None:
    """Give a cell with little noise smaller pixels."""
    noisy, clean = guide.open_sample("cell-2d")[::-1]
    if not guide.full:
        clean = smaller(guide, clean, (48, 48))
    guide.viewer.layers.remove(noisy)
    clean.visible = True
    guide.closer(clean, 2.5 if guide.full else 1.0)
    widget = guide.dock("Super-resolve")
    guide.look("open", widget)
    if not guide.full:
        widget.method.updates.setValue(2)
    guide.click(widget.run.preview)
    guide.finish(widget)
    guide.look("preview", widget)
    guide.click(widget.run.run)
    guide.finish(widget)
    guide.closer(clean, 2.5 if guide.full else 1.0)
    guide.look("enlarged", widget)
    sharp = guide.viewer.layers.selection.active
    assert sharp.data.shape == tuple(2 * n for n in clean.data.shape)
    guide.click(widget.run.compare)
    guide.look("before", widget)
    guide.click(widget.run.compare)
    path = guide.folder / "sharp.tif"
    guide.viewer.layers.save(str(path), selected=True)
    guide.undock(widget)
    guide.viewer.layers.clear()
    (again,) = guide.viewer.open(path, plugin="napari")
    np.testing.assert_array_equal(again.data, sharp.data)


def previews(guide: Guide) -> list[Any]:
    """Return the layers that show how far a training is."""
    from napari_ssdenoise.widgets._layers import PREVIEW_KEY

    return [layer for layer in guide.viewer.layers if PREVIEW_KEY in layer.metadata]


def smaller(guide: Guide, layer: Any, size: tuple[int, ...]) -> Any:
    """Put the middle of a layer in its place."""
    data, options, kind = layer.as_layer_data_tuple()
    guide.viewer.layers.remove(layer)
    cut = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(data.shape, size, strict=True))
    return guide.viewer.add_layer(Layer.create(data[cut], options, kind))


FLOWS: dict[str, Callable[[Guide], None]] = {
    "2d": plane,
    "3d": stack,
    "time-lapse": film,
    "mri": scan,
    "super-resolution": sharpen,
}
