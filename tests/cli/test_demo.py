"""The demo, on a sample that is small enough for a test; and its picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from napari_ssdenoise import demo
from napari_ssdenoise.cli import demo as verb
from napari_ssdenoise.io import read_volume
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.samples import Sample, load_sample
from napari_ssdenoise.samples.imaging import smooth


@pytest.fixture
def small_sample(monkeypatch) -> Sample:
    whole = load_sample("cell-2d")
    y, x = (slice(s.start, s.start + 96) for s in demo.most_varied(np.asarray(whole.clean), 96))
    part = Sample(whole.noisy.like(whole.noisy[y, x]), whole.clean.like(whole.clean[y, x]), "Part", "of a cell")
    monkeypatch.setattr(verb, "load_sample", lambda key, seed: part)
    return part


def test_the_demo_leaves_images_model_picture_and_figures(run, small_sample, tmp_path, last_json):
    result = run("demo", "--out", "out", "--seconds", 0.3, "--json")
    found = last_json(result)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "before-after.png",
        "denoised.ome.zarr",
        "denoiser.model",
        "figures.json",
        "noisy.ome.zarr",
        "truth.ome.zarr",
    ]
    figures = json.loads((out / "figures.json").read_text())
    assert figures["psnr"] == pytest.approx(found["psnr"], abs=1e-6)
    assert found["gaussian"]["psnr"] > found["noisy"]["psnr"]
    assert "best Gaussian filter" in result.stderr
    assert TrainedModel.load(out / "denoiser.model").algorithm.key == "blindspot"
    assert read_volume(out / "denoised.ome.zarr").shape == small_sample.noisy.shape
    with Image.open(out / "before-after.png") as picture:
        assert picture.size[0] > 4 * 96
    run("demo", "--out", "out", "--seconds", 0.1)  # replaces what it made


@pytest.mark.parametrize("shape", [(48, 40), (10, 48, 40)], ids=["2D", "3D"])
def test_no_gaussian_of_the_list_is_better(shape, rng):
    clean = smooth(rng.normal(0, 1, shape).astype(np.float32), (2.0,) * len(shape)) * 10
    noisy = clean + rng.normal(0, 0.5, shape)
    image, sigmas = demo.best_gaussian(noisy, clean)
    assert image.shape == shape
    assert len(sigmas) == len(shape)
    error = np.mean((image - clean) ** 2)
    assert error < np.mean((noisy - clean) ** 2)
    for other in demo.IN_PLANE:
        assert error <= np.mean((smooth(noisy.astype(np.float32), (*sigmas[:-2], other, other)) - clean) ** 2) + 1e-7


@pytest.mark.parametrize("shape", [(64, 64), (40, 100), (300, 260)], ids=str)
def test_the_picture_shows_planes_as_they_are(shape, tmp_path, rng):
    truth = rng.uniform(0, 1, shape)
    panels = [demo.Panel(truth, "Noisy", "20 dB"), demo.Panel(truth * 0, "Black"), demo.Panel(truth, "Truth")]
    demo.save_picture(tmp_path / "p.png", panels, truth)
    with Image.open(tmp_path / "p.png") as image:
        picture = np.asarray(image)
    scale = max(1, demo.PANEL // max(shape))
    left, top = demo.GAP, demo.HEADING
    shown = picture[
        top + scale // 2 : top + shape[0] * scale : scale, left + scale // 2 : left + shape[1] * scale : scale, 0
    ]
    low, high = np.percentile(truth, (0.1, 99.8))
    expected = np.rint(255 * np.clip((truth - low) / (high - low), 0, 1))
    assert np.mean(np.abs(shown - expected) <= 1) > 0.9  # the frame of the detail covers a few
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_the_detail_is_where_the_truth_varies(rng):
    plane = np.zeros((100, 90))
    plane[60:80, 20:40] = rng.normal(size=(20, 20))
    y, x = demo.most_varied(plane, 32)
    assert y.start <= 60 < y.stop
    assert x.start <= 25 < x.stop
