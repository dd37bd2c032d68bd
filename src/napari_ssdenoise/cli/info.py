"""``ssdenoise info``: what a model or an image is."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from napari_ssdenoise.cli._program import common
from napari_ssdenoise.cli._report import Reporter, duration

if TYPE_CHECKING:
    from napari_ssdenoise.volume import Volume


@click.command(name="info")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--axes", metavar="TCZYXS", help="One letter per dimension, if the file names none.")
@common
def command(path: Path, axes: str | None, *, as_json: bool) -> None:
    """Say what a saved model was trained on and how, or what an image file holds."""
    reporter = Reporter(as_json=as_json)
    if any((path / name).is_file() for name in ("model.json", "rdf.yaml")) or (
        path.is_file() and zipfile.is_zipfile(path)
    ):
        from napari_ssdenoise.io.bundle import is_zoo_package
        from napari_ssdenoise.model import TrainedModel

        description = TrainedModel.load(path).describe()
        zoo = is_zoo_package(path)
        rows = _model_rows(path, description)
        reporter.table(("", ""), [*rows[:1], ("package", "of the BioImage Model Zoo"), *rows[1:]] if zoo else rows)
        reporter.result({"kind": "model", "path": path, "zoo": zoo, **description})
        return
    from napari_ssdenoise.volume import open_volume

    facts = _image_facts(open_volume(path, axes=axes))
    reporter.table(("", ""), [("image", str(path)), *((name, _words(value)) for name, value in facts.items())])
    reporter.result({"kind": "image", "path": path, **facts})


def _model_rows(path: Path, description: dict[str, Any]) -> list[tuple[str, ...]]:
    from napari_ssdenoise.algorithms import list_algorithms

    record, geometry = description["record"], description["geometry"]
    algorithm = list_algorithms()[description["algorithm"]]
    trained = [f"{d['name']} ({d['axes']} {_words(d['shape'])}, {d['dtype']})" for d in record.get("data", ())]
    rows: list[tuple[str, ...]] = [
        ("model", str(path)),
        ("algorithm", f"{algorithm.title} ({algorithm.key})"),
        ("paper", algorithm.reference),
        ("works on", f"{geometry['spatial']}, {geometry['n_channels']} channel(s) at once"),
        ("trained on", "\n".join(trained)),
        (
            "training",
            f"{record.get('steps')} steps in {duration(record.get('seconds', float('nan')))}, "
            f"{record.get('device')}, {record.get('precision')}, seed {record.get('seed')}",
        ),
        ("loss", f"{record['loss'][-1][-1]:.4g}" if record.get("loss") else "-"),
    ]
    return rows + [(f"  {name}", _words(value)) for name, value in description["settings"].items()]


def _image_facts(volume: Volume) -> dict[str, Any]:
    """Describe an image; of its pixels, only the plane in the middle is read."""
    middle = tuple(slice(None) if a in "YXS" else n // 2 for a, n in volume.sizes.items())
    facts: dict[str, Any] = {
        "name": volume.name,
        "axes": volume.axes,
        "shape": list(volume.shape),
        "dtype": str(volume.dtype),
        "gigabytes": volume.nbytes / 1e9,
        "scale": list(volume.scale),
        "units": list(volume.units),
        "chunks": list(volume.chunks),
    }
    if volume.channel_names:
        facts["channels"] = list(volume.channel_names)
    if 0 not in volume.shape and volume.dtype.kind in "uif":
        plane = volume[middle].astype(np.float64)
        finite = plane[np.isfinite(plane)]
        if finite.size:
            low, median, high = np.percentile(finite, (0, 50, 100)).tolist()
            facts["middle plane"] = {"min": low, "median": median, "max": high, "not finite": plane.size - finite.size}
    return facts


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " x ".join(_words(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None or value == "" else str(value)
