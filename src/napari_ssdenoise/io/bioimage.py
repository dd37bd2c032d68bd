"""Models as packages of the BioImage Model Zoo (https://bioimage.io), which Fiji, ilastik, QuPath and others run.

A package holds the network as TorchScript, with normalisation and all, for other programs; tensors to test it with; and
the saved model itself beside it, so that it is opened here as what it was. Packages of others are not opened: their
networks are programs.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._bioimage_example import example
from napari_ssdenoise.io._thumbnail import beside
from napari_ssdenoise.io._writer import publish
from napari_ssdenoise.io.bundle import DESCRIPTION, WEIGHTS, is_model, save_model

if TYPE_CHECKING:
    from napari_ssdenoise.engine.portable import Portable
    from napari_ssdenoise.model import TrainedModel

NETWORK = "network.pt"
COVER_SIDE = 512
LEAST_SIDE = 64  # pixels along Y and X of the test image
MOST_BYTES = 1 << 30  # bytes of the network's layers for it
INSTALL = 'pip install "napari-ssdenoise[bioimage]"'
MEANINGS = {
    "mean": "Denoised image.",
    "prior": "What the network predicts of a pixel from all others, before the pixel itself is looked at.",
    "std": "Standard deviation of the denoised image: how uncertain it is.",
}
CLOSING = """## Validation

There are no clean images to compare with. Look at the difference between noisy and denoised image: it should be noise
alone, without structure of the specimen. `napari_ssdenoise.assess` estimates the error and the resolution of a result
without the truth.

## Open it with napari-ssdenoise

This package holds the saved model as well: `ssdenoise denoise IMAGE -m PACKAGE.zip -o RESULT.tif`,
`TrainedModel.load("PACKAGE.zip")` in Python, or *Load model* in napari.
"""


@dataclass(frozen=True)
class About:
    """What people say of a model that they share.

    Parameters
    ----------
    name
        Letters, digits, spaces and ``_+-()``; made of algorithm and images by default.
    description
        In a sentence or two.
    authors
        Their names.
    license
        SPDX identifier of the terms under which others may use it, e.g. ``"CC-BY-4.0"``. The zoo asks for one.
    """

    name: str = ""
    description: str = ""
    authors: Sequence[str] = ()
    license: str | None = None


def export_model(model: TrainedModel, path: Path, *, sample: Any, about: About, overwrite: bool) -> Path:
    """Write a package, and have the official library check it; see `TrainedModel.export_bioimage`."""
    if not find_spec("bioimageio"):
        raise ValueError(f"to export, the package bioimageio.core is needed: {INSTALL}")
    path = path if path.suffix == ".zip" else path.with_name(path.name + ".zip")
    if path.exists() and not (overwrite and is_model(path)):
        advice = "Choose another name: only a model is ever replaced." if overwrite else "Pass overwrite=True."
        raise FileExistsError(f"{path} exists. {advice}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist. Make it first, or choose another place.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        folder = Path(scratch) / "model"
        save_model(model, folder, overwrite=False)
        packed = Path(scratch) / "packed.zip"
        _pack(model, _write_tensors(model, folder, sample), about, folder, packed)
        check_package(packed)
        publish(packed, path, overwrite=overwrite)
    return path


@dataclass(frozen=True)
class _Tested:
    """The traced network, and what it was tested with."""

    portable: Portable
    shape: tuple[int, ...]  # of the test image, per spatial axis
    halo: tuple[int, ...]  # per spatial axis; 0 where an image is to be given whole


def _write_tensors(model: TrainedModel, folder: Path, sample: Any) -> _Tested:
    """Write the network as TorchScript, the test tensors and the cover."""
    import torch

    from napari_ssdenoise.engine.portable import Portable, each, save_torchscript, to_torchscript

    portable = Portable(model)
    shape, halo = _geometry(model, portable)
    noisy = example(model, sample, shape, portable.channels)
    script, portable = to_torchscript(model, noisy)
    with torch.no_grad():
        made = [result.numpy() for result in each(script(torch.from_numpy(noisy)[None]))]
    save_torchscript(script, folder / NETWORK)
    np.save(folder / "input.npy", noisy[None])
    for name, result in zip(model.algorithm.outputs, made, strict=True):
        np.save(folder / f"{name}.npy", result)
    planes = [image[tuple(n // 2 for n in image.shape[:-2])] for image in (noisy[0], made[0][0, 0])]
    (folder / "cover.png").write_bytes(beside(planes[0], planes[1], COVER_SIDE))
    return _Tested(portable, noisy.shape[1:], halo)


def _geometry(model: TrainedModel, portable: Portable) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose the smallest image that other programs may give, and the halo that they leave off along each axis.

    A thin axis has no halo: it is given whole; and no axis has one where its images would need too much memory.
    """
    sizes = [dict(zip(data["axes"], data["shape"], strict=True)) for data in model.record.get("data", ())]
    halo, shape = [], []
    for axis, reach, grid, least in zip(
        model.geometry.spatial, portable.halo, portable.stride, portable.smallest, strict=True
    ):
        wide = ceil(reach / grid) * grid
        thinnest = min((size.get(axis, 1) for size in sizes), default=2 * wide + grid)
        fits = thinnest >= 2 * wide + grid
        halo.append(wide if fits else 0)
        side = max(2 * halo[-1] + grid, least, LEAST_SIDE if axis in "YX" else 1)
        shape.append(ceil(side / grid) * grid)
    if 4 * portable.network.activations * prod(shape) > MOST_BYTES:
        halo = [0] * len(halo)
        shape = [
            ceil(max(least, LEAST_SIDE if axis in "YX" else 1) / grid) * grid
            for axis, grid, least in zip(model.geometry.spatial, portable.stride, portable.smallest, strict=True)
        ]
    return tuple(shape), tuple(halo)


def _pack(model: TrainedModel, tested: _Tested, about: About, folder: Path, packed: Path) -> None:
    """Describe the files in a folder as the zoo wants it, check that, and pack them."""
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description, save_bioimageio_package

    (folder / "README.md").write_text(_documentation(model, tested, about), encoding="utf8")
    with ValidationContext(root=folder, perform_io_checks=True):
        found = build_description(_description(model, tested, about))
        if isinstance(found, InvalidDescr):
            raise ValueError(f"the BioImage Model Zoo does not take this description: {_reasons(found)}")
        save_bioimageio_package(found, output_path=packed)


def _reasons(found: Any) -> str:
    """Say in one line what a validation found."""
    errors = [error for detail in found.validation_summary.details for error in detail.errors]
    return "; ".join(f"{'.'.join(map(str, error.loc))}: {error.msg}" for error in errors) or "it is not valid"


def check_package(path: Path) -> None:
    """Have the zoo's library load a package, run it on its test image, and compare.

    Raises
    ------
    ValueError
        If it is not valid, or gives other pixels than it says.
    """
    from bioimageio.core import test_model

    from napari_ssdenoise.engine.portable import quiet

    with quiet():
        summary = test_model(path)
    if summary.status != "passed":
        errors = [error.msg for detail in summary.details for error in detail.errors]
        raise ValueError(f"{path} does not pass the BioImage Model Zoo's test: {'; '.join(errors) or summary.status}")


def _description(model: TrainedModel, tested: _Tested, about: About) -> dict[str, Any]:
    """Return what goes into the package's YAML."""
    import torch
    from bioimageio.spec.model.v0_5 import ModelDescr

    from napari_ssdenoise import __version__

    algorithm, record, normalization = model.algorithm, model.record, model.normalization
    noisy = "Noisy image, in the units of the images that the model was trained on."
    outputs = {name: MEANINGS.get(name, f"{algorithm.title}: {name}") for name in algorithm.outputs}
    return {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,
        "name": _name(model, about),
        "description": about.description or _sentence(model),
        "authors": [{"name": name} for name in about.authors],
        **({"license": about.license} if about.license else {}),
        "cite": [{"text": algorithm.reference, "doi": algorithm.doi}] if algorithm.doi else [],
        "tags": ["denoising", "self-supervised", algorithm.key, f"{len(model.geometry.spatial)}d", "pytorch"],
        "documentation": {"source": "README.md"},
        "covers": [{"source": "cover.png"}],
        "timestamp": datetime.now(UTC).isoformat(),
        "inputs": [_tensor("input", noisy, _axes(model, tested, None))],
        "outputs": [_tensor(name, text, _axes(model, tested, "input")) for name, text in outputs.items()],
        "weights": {"torchscript": {"source": NETWORK, "pytorch_version": torch.__version__.partition("+")[0]}},
        "attachments": [{"source": DESCRIPTION}, {"source": WEIGHTS}],
        "config": {
            "bioimageio": {
                "task": "denoising",
                "model_parameter_count": sum(p.numel() for p in model.network.parameters()),
            },
            "napari_ssdenoise": {
                "version": __version__,
                "algorithm": algorithm.key,
                "data_range": [normalization.low, normalization.high],
                "steps": record.get("steps"),
            },
        },
    }


def _tensor(name: str, description: str, axes: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe an image that is given or returned, whose example is in a file of its name."""
    return {
        "id": "denoised" if name == "mean" else name,
        "description": description,
        "axes": axes,
        "test_tensor": {"source": f"{name}.npy"},
        "data": {"type": "float32"},
    }


def _axes(model: TrainedModel, tested: _Tested, reference: str | None) -> list[dict[str, Any]]:
    """Describe the axes of the input, or of an output that has those of a reference."""
    names = [f"channel{c}" for c in range(tested.portable.channels)]
    axes: list[dict[str, Any]] = [{"type": "batch"}, {"type": "channel", "channel_names": names}]
    data = (model.record.get("data") or [{}])[0]
    known = dict(
        zip(data.get("axes", ""), zip(data.get("scale", ()), data.get("units", ()), strict=False), strict=False)
    )
    for axis, smallest, grid, halo in zip(
        model.geometry.spatial, tested.shape, tested.portable.stride, tested.halo, strict=True
    ):
        identity = "time" if axis == "T" else axis.lower()
        scale, unit = known.get(axis, (1.0, None))
        size: dict[str, Any] = {"min": smallest, "step": grid}
        if reference:
            size = {"tensor_id": reference, "axis_id": identity}
        axes.append(
            {
                "type": "time" if axis == "T" else "space",
                "id": identity,
                "size": size,
                # Not as the axis's scale: in floating point, halos would be no whole pixels any longer.
                "description": f"trained at {scale:g} {unit} per pixel" if unit else "",
                **({"halo": halo} if reference and halo else {}),
            }
        )
    return axes


def _name(model: TrainedModel, about: About) -> str:
    images = ", ".join(str(data.get("name", "")) for data in model.record.get("data", ()))
    wanted = about.name or f"{model.algorithm.title} - {images}"
    allowed = " ".join(re.sub(r"[^A-Za-z0-9_+\-() ]", " ", wanted).split())[:64].strip()
    return allowed if len(allowed) >= 5 else f"denoiser {allowed}".strip()


def _sentence(model: TrainedModel) -> str:
    spatial, record = model.geometry.spatial, model.record
    return (
        f"Removes noise from images like those it was trained on ({spatial}), without clean images: "
        f"{model.algorithm.title}, {record.get('steps', 'some')} steps, with napari-ssdenoise."
    )


def _documentation(model: TrainedModel, tested: _Tested, about: About) -> str:
    """Write the package's README."""
    algorithm, geometry, record, n = model.algorithm, model.geometry, model.record, model.normalization
    images = [
        f"- {d['name']}: axes {d['axes']}, {' x '.join(map(str, d['shape']))}, {d['dtype']}" for d in record["data"]
    ]
    settings = [f"- {name}: {value}" for name, value in model.describe()["settings"].items()]
    sizes = [
        f"- {axis}: {size} pixels or more, in steps of {grid}; halo {halo or 'none: give the whole axis at once'}"
        for axis, size, grid, halo in zip(
            geometry.spatial, tested.shape, tested.portable.stride, tested.halo, strict=True
        )
    ]
    outputs = [f"- {'denoised' if name == 'mean' else name}: {MEANINGS.get(name, name)}" for name in algorithm.outputs]
    return "\n".join(
        [
            f"# {_name(model, about)}",
            "",
            about.description or _sentence(model),
            "",
            f"Method: {algorithm.title}. {algorithm.reference}",
            "",
            "Images are given and returned in their own units: normalisation is a part of the network. Values in the "
            f"training images: {n.low:g} to {n.high:g}. Images with other noise, optics or exposure need a model of "
            "their own, which takes minutes to train from the noisy images themselves.",
            "",
            "## Trained on",
            "",
            *images,
            "",
            f"{record.get('steps')} steps, seed {record.get('seed')}.",
            "",
            "## Sizes",
            "",
            *sizes,
            "",
            "## Outputs",
            "",
            *outputs,
            "",
            "## Settings",
            "",
            *settings,
            "",
            CLOSING,
        ]
    )
