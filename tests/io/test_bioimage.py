"""Packages of the BioImage Model Zoo: its own library accepts them, and they give the model's pixels."""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine.trainer import train
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The zoo's library loads TorchScript, of which torch says that it is old, and leaves files for the collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
needs_zoo = pytest.mark.skipif(not find_spec("bioimageio"), reason="the extra bioimage is not installed")
TINY = {"width": 4, "depth": 1, "patch": 16, "batch": 2}


def images(axes: str = "YX", *shape: int) -> Volume:
    shape = shape or (64, 64)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    noise = np.random.default_rng(0).normal(0, 5, shape)
    unit = (0.1,) * len(shape), ("micrometer",) * len(shape)
    return Volume((100 + 20 * np.sin(x / 5) * np.cos(y / 7) + noise).astype(np.float32), axes, *unit, name="cells")


def trained(volume: Volume, key: str = "n2v", channels: Any = "auto", **settings: Any) -> TrainedModel:
    known = TINY if key not in ("zs-n2n",) else {k: v for k, v in TINY.items() if k != "depth"}
    return train(volume, get_algorithm(key, **{**known, **settings}), steps=2, channels=channels, precision="float32")


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return trained(images())


KINDS: dict[str, Callable[[], tuple[TrainedModel, Volume]]] = {
    "n2v": lambda: (trained(images()), images()),
    "n2v2, channels apart": lambda: (
        trained(images("CYX", 2, 64, 64), channels="independent", n2v2=True),
        images("CYX", 2, 64, 64),
    ),
    "zs-n2n, channels together": lambda: (
        trained(images("CYX", 2, 64, 64), "zs-n2n", channels="joint"),
        images("CYX", 2, 64, 64),
    ),
    "sasl": lambda: (trained(images(), "sasl", blind="3"), images()),
    "stack": lambda: (trained(images("ZYX", 16, 32, 32)), images("ZYX", 16, 32, 32)),
    "blindspot": lambda: (trained(images(), "blindspot", noise="poisson-gaussian"), images()),
    "blindspot, channels together": lambda: (
        trained(images("CYX", 2, 64, 64), "blindspot", channels="joint", noise="gaussian"),
        images("CYX", 2, 64, 64),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_gives_the_pixels_of_predict_for_any_size(kind: str) -> None:
    import torch

    from napari_ssdenoise.engine.portable import each, to_torchscript

    model, volume = KINDS[kind]()
    script, _ = to_torchscript(model, volume.data if volume.axes[0] == "C" else volume.data[None])
    key = (..., slice(3, -4), slice(2, -3))
    for part in (volume.data, volume.data[key]):
        wanted = model.predict(Volume(part, volume.axes), outputs=model.algorithm.outputs, precision="float32")
        found = each(script(torch.from_numpy(part if volume.axes[0] == "C" else part[None])[None]))
        for one, other in zip(found, wanted, strict=True):
            assert np.abs(one[0].numpy().reshape(other.shape) - other).max() <= 1e-4 * min(model.normalization.std)


@pytest.fixture(scope="module")
def package(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not find_spec("bioimageio"):
        pytest.skip("the extra bioimage is not installed")
    folder = tmp_path_factory.mktemp("package")
    terms: dict[str, Any] = {"authors": ["Ada Lovelace"], "license": "CC-BY-4.0", "name": "cells at night"}
    made = model.export_bioimage(folder / "cells", sample=images("YX", 72, 80), **terms)
    assert made == folder / "cells.zip"
    assert list(folder.iterdir()) == [made]
    return made


def test_a_package_passes_the_official_check_and_gives_our_pixels(model: TrainedModel, package: Path) -> None:
    from bioimageio.core import create_prediction_pipeline, load_model, test_model
    from bioimageio.core.digest_spec import create_sample_for_model

    assert test_model(package).status == "passed"
    described = load_model(package)
    assert described.name == "cells at night"
    assert described.authors[0].name == "Ada Lovelace"
    assert str(described.license) == "CC-BY-4.0"
    assert described.cite[0].doi == model.algorithm.doi
    assert described.config.napari_ssdenoise["data_range"] == [model.normalization.low, model.normalization.high]
    volume = images("YX", 72, 80)
    sample = create_sample_for_model(described, inputs={"input": volume.data[None, None]})
    with create_prediction_pipeline(described) as pipeline:
        made = pipeline.predict_sample_without_blocking(sample, skip_input_padding=True, skip_output_cropping=True)
    wanted = model.predict(volume, precision="float32")
    assert np.abs(made.members["denoised"].data.values[0, 0] - wanted).max() <= 1e-4 * model.normalization.std[0]


def test_tiles_of_another_program_have_no_seams(model: TrainedModel, package: Path) -> None:
    from bioimageio.core import predict

    volume = images("YX", 96, 100)
    made = predict(model=package, inputs={"input": volume.data[None, None]}, blocksize_parameter=1)
    found, wanted = made.members["denoised"].data.values[0, 0], model.predict(volume, precision="float32")
    rim = max(model.network.reach()) + max(model.network.stride)
    inside = (slice(rim, -rim),) * 2
    assert np.abs(found - wanted)[inside].max() <= 1e-4 * model.normalization.std[0]


@needs_zoo
def test_uncertainty_and_time_are_described(tmp_path: Path) -> None:
    volume = images("TYX", 12, 32, 32)
    algorithm = get_algorithm("blindspot", **TINY, noise="gaussian")
    model = train(volume, algorithm, steps=1, spatial="TYX", precision="float32")
    package = model.export_bioimage(tmp_path / "film.zip", sample=volume)
    from bioimageio.core import load_model

    described = load_model(package)
    assert [str(tensor.id) for tensor in described.outputs] == ["denoised", "prior", "std"]
    assert [axis.type for axis in described.inputs[0].axes] == ["batch", "channel", "time", "space", "space"]


def test_a_package_is_opened_as_the_model_it_was(
    model: TrainedModel, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = TrainedModel.load(package)
    assert loaded.algorithm == model.algorithm
    assert loaded.record == json.loads(json.dumps(model.record))
    np.testing.assert_array_equal(loaded.predict(images()), model.predict(images()))
    monkeypatch.setattr("napari_ssdenoise.io.bioimage.check_package", lambda path: None)
    before = package.stat().st_mtime_ns
    model.export_bioimage(package)  # a package may replace a package
    assert package.stat().st_mtime_ns > before
    with pytest.raises(FileExistsError, match="overwrite"):
        model.export_bioimage(package, overwrite=False)


@needs_zoo
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"license": "mine"}, "license"),
        ({"sample": Volume(np.ones((40, 40, 3), np.float32), "YXS")}, "channels"),
    ],
    ids=["no SPDX licence", "a sample that does not fit"],
)
def test_what_cannot_be_described_leaves_no_file(
    model: TrainedModel, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        model.export_bioimage(tmp_path / "cells.zip", **options)
    assert not list(tmp_path.iterdir())


@needs_zoo
def test_nothing_else_is_replaced(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "cells.zip").write_text("ten years")
    with pytest.raises(FileExistsError, match="only a model"):
        model.export_bioimage(tmp_path / "cells.zip")
    with pytest.raises(FileNotFoundError, match="folder"):
        model.export_bioimage(tmp_path / "nowhere" / "cells.zip")


def test_models_that_other_programs_cannot_run_are_refused() -> None:
    from napari_ssdenoise.engine.portable import Portable

    with pytest.raises(ValueError, match="per_image"):
        Portable(trained(images(), "blindspot", noise="gaussian", per_image=True))
    sharper = train(images(), get_algorithm("zssr", kernel="1", patch=16, batch=1), steps=1)
    with pytest.raises(ValueError, match="TorchScript"):
        Portable(sharper)


def test_without_the_library_it_says_what_to_install(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_ssdenoise.io.bioimage.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install .*bioimage"):
        model.export_bioimage(tmp_path / "cells.zip")


@pytest.mark.parametrize("name", ["rdf.yaml", "bioimageio.yaml"])
@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
def test_packages_of_others_are_refused_unread(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "other.zip"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "type: model")
            archive.writestr("weights.pt", b"\x80\x04.")
    else:
        path.mkdir()
        (path / name).write_text("type: model")
    with pytest.raises(ValueError, match="another program"):
        TrainedModel.load(path)
