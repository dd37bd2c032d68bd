from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from napari_ssdenoise.samples import SAMPLES, Camera, Optics, Sample, load_sample
from napari_ssdenoise.samples.imaging import deposit, filaments, smooth

KEYS = sorted(SAMPLES)
GEOMETRY = {
    "cell-2d": ("YX", (512, 512), (0.108, 0.108), ("micrometer",) * 2),
    "tissue-3d": ("ZYX", (48, 256, 256), (0.5, 0.16, 0.16), ("micrometer",) * 3),
    "timelapse": ("TYX", (40, 256, 256), (0.5, 0.108, 0.108), ("second", "micrometer", "micrometer")),
}

made = cache(load_sample)


def arrays(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(sample.noisy, dtype=np.float64), np.asarray(sample.clean, dtype=np.float64)


def digest(sample: Sample) -> str:
    both = (np.ascontiguousarray(v[...]).tobytes() for v in (sample.noisy, sample.clean))
    return hashlib.sha256(b"".join(both)).hexdigest()


@pytest.mark.parametrize("key", KEYS)
def test_geometry_names_and_types(key: str) -> None:
    axes, shape, scale, units = GEOMETRY[key]
    sample = made(key)
    for volume in (sample.noisy, sample.clean):
        assert (volume.axes, volume.shape, volume.scale, volume.units) == (axes, shape, scale, units)
    assert sample.noisy.dtype == np.uint16
    assert sample.clean.dtype == np.float32
    assert sample.noisy.name != sample.clean.name
    assert sample.title
    assert sample.description


@pytest.mark.parametrize("key", KEYS)
def test_the_seed_decides_everything(key: str) -> None:
    assert digest(load_sample(key, 0)) == digest(made(key))
    assert digest(load_sample(key, 1)) != digest(made(key))


@pytest.mark.parametrize("key", KEYS)
def test_noise_is_strong_but_leaves_the_structure(key: str) -> None:
    noisy, clean = arrays(made(key))
    data_range = np.percentile(clean, 99.9) - clean.min()
    assert 18 < 10 * np.log10(data_range**2 / np.mean((noisy - clean) ** 2)) < 24
    assert np.corrcoef(noisy.ravel(), clean.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("key", KEYS)
def test_the_truth_lies_within_the_camera(key: str) -> None:
    camera = Camera()
    noisy, clean = arrays(made(key))
    assert clean.min() > camera.offset
    assert clean.max() < 2**camera.bits / 10
    assert noisy.min() > 0
    assert noisy.max() < 2**camera.bits - 1


@pytest.mark.parametrize("key", KEYS)
def test_noise_is_unbiased_and_independent_between_pixels(key: str) -> None:
    noisy, clean = arrays(made(key))
    noise = noisy - clean
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(noise.size)
    for axis in range(noise.ndim):
        here, there = (np.take(noise, range(i, noise.shape[axis] - 1 + i), axis) for i in (0, 1))
        assert abs(np.corrcoef(here.ravel(), there.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("key", KEYS)
def test_photon_transfer_of_a_sample_gives_the_camera_back(key: str) -> None:
    camera = Camera()
    noisy, clean = arrays(made(key))
    order = np.argsort(clean, axis=None)
    signal, squared = (a.ravel()[order] for a in (clean - camera.offset, (noisy - clean) ** 2))
    bins = [
        (s.mean(), q.mean(), np.sqrt(len(q)) / q.mean())
        for s, q in zip(np.array_split(signal, 60), np.array_split(squared, 60), strict=True)
    ]
    mean, variance, weight = np.array(bins).T
    slope, floor = np.polyfit(mean, variance, 1, w=weight)
    assert slope * camera.gain == pytest.approx(1, abs=0.05)
    assert np.sqrt(floor - 1 / 12) * camera.gain == pytest.approx(camera.read_noise, rel=0.1)


@pytest.mark.parametrize(
    "camera", [Camera(), Camera(gain=2.1, offset=200, read_noise=6, bits=12)], ids=["scmos", "ccd"]
)
def test_photon_transfer_of_flat_fields(camera: Camera) -> None:
    rng = np.random.default_rng(5)
    photons = np.linspace(0, 400, 9)[:, None]
    counts = camera.expose(np.broadcast_to(photons, (9, 40_000)), rng).astype(np.float64)
    assert counts.mean(1) == pytest.approx(camera.expected(photons)[:, 0], rel=2e-3)
    slope, floor = np.polyfit(counts.mean(1) - camera.offset, counts.var(1), 1, w=1 / counts.var(1))
    assert slope * camera.gain == pytest.approx(1, abs=0.05)
    assert np.sqrt(floor - 1 / 12) * camera.gain == pytest.approx(camera.read_noise, rel=0.05)


def test_a_camera_saturates_at_its_bits() -> None:
    counts = Camera(gain=0.5, bits=8, offset=10).expose(np.full((20, 20), 1e5), np.random.default_rng(0))
    assert counts.dtype == np.uint16
    assert np.all(counts == 255)


@pytest.mark.parametrize("photons", [-1.0, np.nan, np.inf])
def test_a_camera_refuses_impossible_light(photons: float) -> None:
    with pytest.raises(ValueError, match="finite and at least 0"):
        Camera().expose([[1.0, photons]], np.random.default_rng(0))


@pytest.mark.parametrize("settings", [{"gain": 0.0}, {"read_noise": -1.0}, {"offset": -1.0}, {"bits": 0}, {"bits": 17}])
def test_an_impossible_camera_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"not a camera|1 to 16"):
        Camera(**settings)


def test_optics_agree_with_the_paraxial_widths_at_low_aperture() -> None:
    axial, lateral = Optics(0.2, 1.0, 0.5).widths()
    assert lateral == pytest.approx(np.sqrt(2) / (2 * np.pi) * 0.5 / 0.2, rel=0.02)
    assert axial == pytest.approx(2 * np.sqrt(6) / (2 * np.pi) * 0.5 / 0.2**2, rel=0.02)


def test_a_light_sheet_cuts_the_axial_width_only() -> None:
    wide, sheet = Optics(0.8, 1.333, 0.52), Optics(0.8, 1.333, 0.52, sheet=1.0)
    assert sheet.widths()[0] < min(1.0, wide.widths()[0])
    assert sheet.widths()[1] == wide.widths()[1]


def test_blur_keeps_the_light_and_has_the_width_asked_for() -> None:
    point = np.zeros((31, 41), np.float32)
    point[15, 20] = 7
    blurred = smooth(point, (1.5, 2.5))
    assert blurred.sum() == pytest.approx(7, rel=1e-4)
    for axis, width in enumerate((1.5, 2.5)):
        profile = blurred.sum(1 - axis) / 7
        position = np.arange(len(profile))
        assert np.sqrt(profile @ (position - profile @ position) ** 2) == pytest.approx(width, rel=0.01)
    assert smooth(np.full((9, 9), 3, np.float32), (2, 2)) == pytest.approx(3, rel=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_emitters_keep_their_light_and_place(ndim: int) -> None:
    pixel = (0.5, 0.1, 0.2)[:ndim]
    at = np.array([2.25, 0.37, 1.1])[:ndim]
    image = deposit(np.stack([at, at + 99]), [5.0, 1.0], (10,) * ndim, pixel)
    assert image.sum() == pytest.approx(5)
    for axis, (place, size) in enumerate(zip(at, pixel, strict=True)):
        profile = np.moveaxis(image, axis, 0).reshape(10, -1).sum(1) / 5
        assert profile @ np.arange(10) * size == pytest.approx(place, rel=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_filaments_forget_their_heading_over_the_persistence_length(ndim: int) -> None:
    headings = np.zeros((3000, ndim))
    headings[:, 0] = 1
    path = filaments(np.zeros((3000, ndim)), headings, 2.05, 2.0, np.random.default_rng(0))
    tangent = np.diff(path, axis=1)[:, -1, 0] / 0.05
    assert np.linalg.norm(np.diff(path, axis=1), axis=-1) == pytest.approx(0.05)
    assert tangent.mean() == pytest.approx(np.exp(-1), abs=0.05)


def test_a_film_moves_and_bleaches() -> None:
    _, film = arrays(made("timelapse"))
    light = film.mean((1, 2)) - Camera().offset - 0.9 / Camera().gain
    assert 0.4 < light[-1] / light[0] < 0.7
    near, far = (np.corrcoef(film[0].ravel(), film[t].ravel())[0, 1] for t in (1, 39))
    assert near > far


def test_unknown_sample_names_the_others() -> None:
    with pytest.raises(ValueError, match=r"'emryo'.*cell-2d, timelapse, tissue-3d"):
        load_sample("emryo")


@pytest.mark.parametrize("key", KEYS)
def test_layers_open_in_napari(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("napari.layers")
    from napari_ssdenoise.widgets import sample_data

    monkeypatch.setattr(sample_data, "load_sample", made)
    data = getattr(sample_data, key.replace("-", "_"))()
    clean, noisy = (layers.Layer.create(*d) for d in data)
    axes, shape, scale, units = GEOMETRY[key]
    assert noisy.visible
    assert not clean.visible
    for layer in (clean, noisy):
        assert layer.data.shape == shape
        assert tuple(layer.scale) == scale
        assert tuple(str(u) for u in layer.units) == units
        assert layer.axis_labels == tuple(axes.lower())
        assert layer.contrast_limits == noisy.contrast_limits
        assert layer.metadata["description"]
    assert clean.data.min() <= noisy.contrast_limits[0] < noisy.contrast_limits[1] < clean.data.max()


def test_samples_need_neither_torch_nor_a_viewer() -> None:
    code = (
        "import sys, napari_ssdenoise.widgets.sample_data\n"
        "assert not {'torch', 'napari', 'qtpy', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
