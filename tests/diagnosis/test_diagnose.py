"""The whole diagnosis: any axes and sizes, assumptions, and which algorithm it recommends."""

from __future__ import annotations

import json

import dask.array
import numpy as np
import pytest
import zarr

import napari_ssdenoise as ssd
from napari_ssdenoise._pauses import pausing
from napari_ssdenoise.algorithms import list_algorithms
from napari_ssdenoise.diagnosis import estimate_noise
from napari_ssdenoise.diagnosis._recommend import struct_mask
from napari_ssdenoise.diagnosis._sampling import PIXELS, read_places


@pytest.fixture
def photons(make, rng):
    return make.cells(rng, 192) * 200 + 2


@pytest.fixture
def frames(make, rng, photons):
    """Return four exposures of one scene, (4, 192, 192)."""
    return np.stack([make.scmos(rng, photons, 2.0, 3.0) for _ in range(4)])


def test_one_white_image(frames):
    report = ssd.diagnose(frames[0], offset=100)
    assert (report.noise, report.algorithm) == ("poisson-gaussian", "blindspot")
    assert report.signal_dependent
    assert report.settings["noise"] == "poisson-gaussian"
    assert report.settings["gain"] == pytest.approx(2, rel=0.1)
    assert report.settings["read_noise"] == pytest.approx(3, rel=0.1)
    assert report.settings["offset"] == 100
    assert [a.holds for a in report.assumptions] == [True, True, True]
    assert (report.axes, report.same_scene, report.quantisation) == ("YX", None, 1)
    assert set(report.correlation) == {"Y", "X"}
    assert 5 < report.snr < 40
    assert report.recommendation.gain == report.settings["gain"]


def test_without_the_blind_spot_network_noise2void_is_recommended(frames, monkeypatch):
    left = {key: kind for key, kind in list_algorithms().items() if key in ("n2v", "n2n")}
    monkeypatch.setattr("napari_ssdenoise.algorithms.list_algorithms", lambda: left)
    report = ssd.diagnose(frames[0])
    assert (report.algorithm, report.settings) == ("n2v", {})


def test_noise_along_a_line_asks_for_every_second_row(make, rng, photons):
    report = ssd.diagnose(photons + make.scanned_noise(rng, photons.shape, 0.3, 10))
    assert (report.algorithm, report.settings["lattice"]) == ("blindspot", "2,1")
    assert struct_mask(report) == "1/1/1"
    assert report.correlated
    assert report.assumptions[1].holds is False


def test_noise_blurred_far_asks_for_a_square_mask(make, rng, photons):
    report = ssd.diagnose(photons + make.blurred_noise(rng, photons.shape, 1.0, 10))
    rows = report.settings["struct_mask"].split("/")
    assert report.algorithm == "n2v"
    assert len(rows) == len(rows[0]) in (5, 7)


def test_noise_blurred_a_little_asks_for_sub_lattices(make, rng, photons):
    report = ssd.diagnose(photons + make.blurred_noise(rng, photons.shape, 0.5, 10))
    assert (report.algorithm, report.settings["lattice"]) == ("blindspot", "2")


def test_offsets_of_rows_ask_for_a_long_mask(rng, photons):
    report = ssd.diagnose(photons + rng.normal(0, 5, photons.shape) + rng.normal(0, 4, (192, 1)))
    assert report.pattern.rows == pytest.approx(4, rel=0.3)
    assert struct_mask(report) == "1" * 11
    assert report.assumptions[1].holds is False


def test_a_second_exposure_is_a_pair(frames):
    report = ssd.diagnose(frames[0], target=frames[1])
    assert (report.algorithm, report.settings) == ("n2n", {"pairs": "target"})
    assert report.same_scene
    assert [a.holds for a in report.assumptions] == [True] * 5


def test_frames_are_pairs_even_if_their_noise_is_correlated_in_space(make, rng, photons):
    frames = np.stack([photons + make.scanned_noise(rng, photons.shape, 0.3, 10) for _ in range(4)])
    report = ssd.diagnose(frames, axes="TYX")
    assert report.algorithm == "n2n"
    assert report.settings["pairs"] == "frames"
    assert report.correlated
    assert abs(report.correlation["T"][0]) < 0.05


def test_exposures_in_an_array_without_axes_are_no_stack(frames):
    report = ssd.diagnose(frames)
    assert (report.axes, report.algorithm) == ("TYX", "n2n")
    assert ssd.diagnose(frames, axes="ZYX").axes == "ZYX"  # the user says it is depth
    assert ssd.diagnose(ssd.Volume(frames, "ZYX")).algorithm != "n2n"


def test_views_that_are_no_pair(make, rng, photons, frames):
    other = make.scmos(rng, np.roll(photons, 5, 1), 2.0, 3.0)
    report = ssd.diagnose(frames[0], target=other)
    assert report.same_scene is False
    assert report.algorithm != "n2n"
    assert "no pair" in report.reasons[0]
    shared = rng.normal(0, 20, photons.shape)
    noisy = [photons + shared + rng.normal(0, 5, photons.shape) for _ in range(2)]
    report = ssd.diagnose(noisy[0], target=noisy[1])
    assert report.algorithm != "n2n"
    assert report.sigma == pytest.approx(20.6, rel=0.1)
    moved = np.stack([make.scmos(rng, np.roll(photons, 6 * n, 0), 2.0, 3.0) for n in range(4)])
    assert ssd.diagnose(moved, axes="TYX").algorithm != "n2n"


def test_saturation_and_clipping_are_said(rng, photons):
    noisy = np.clip(photons + rng.normal(0, 10, photons.shape), 0, 120)
    report = ssd.diagnose(noisy)
    assert report.is_saturated
    assert report.is_clipped
    assert report.saturated == pytest.approx((noisy == 120).mean())
    assert report.assumptions[0].holds is False
    assert any("saturated" in reason for reason in report.reasons)


def test_magnitudes(rng):
    y, x = np.mgrid[:192, :192] - 96
    clean = np.where(np.hypot(y, x) < 60, 200 + 50 * np.sin(x / 9), 0)
    report = ssd.diagnose(np.hypot(clean + rng.normal(0, 20, clean.shape), rng.normal(0, 20, clean.shape)))
    assert (report.noise, report.algorithm) == ("rician", "blindspot")
    assert report.settings["sigma"] == pytest.approx(20, rel=0.05)
    assert report.assumptions[0].holds is False


def test_replaced_pixels(rng, photons):
    noisy = np.where(rng.random(photons.shape) < 0.1, rng.uniform(0, 255, photons.shape), photons)
    report = ssd.diagnose(noisy)
    assert report.noise == report.settings["noise"] == "impulse"
    assert report.settings["impulse_percent"] == pytest.approx(10, rel=0.3)


def test_each_channel_is_measured_and_the_worst_one_counts(rng, photons):
    noisy = np.stack([photons + rng.normal(0, s, photons.shape) for s in (5, 20, 10)], -1)
    report = ssd.diagnose(ssd.Volume(noisy, "YXC", channel_names=("DNA", "actin", "tubulin")))
    assert [channel.name for channel in report.channels] == ["DNA", "actin", "tubulin"]
    assert [round(float(channel.sigma)) for channel in report.channels] == [5, 20, 10]
    assert round(float(report.sigma)) == 20
    assert report.settings == {"noise": "gaussian"}  # of each channel, the rest is found before training
    assert "actin" in report.describe()


def test_rgb_and_axes_in_any_order(rng, photons):
    image = photons + rng.normal(0, 20, photons.shape)
    rgb = np.stack([np.clip(image + 40 * n, 0, 255) for n in range(3)], -1).astype(np.uint8)
    assert len(ssd.diagnose(rgb).channels) == 3
    rgba = np.concatenate([rgb, np.full((*image.shape, 1), 255, np.uint8)], -1)
    assert len(ssd.diagnose(rgba).channels) == 3
    assert float(ssd.diagnose(image.T, axes="XY").sigma) == pytest.approx(20, rel=0.1)
    report = ssd.diagnose(rng.normal(100, 3, (2, 1, 3, 64, 64)))
    assert set(report.correlation) == {"T", "Z", "Y", "X"}
    assert report.sigma == pytest.approx(3, rel=0.1)


def counted(read):
    """Return a block of a lazy array, and remember its size."""

    def function(block):
        read.append(block.size)
        return block

    return function


@pytest.mark.parametrize("chunks", [(1, 4, 256, 256), (1, 1, 512, 1024)], ids=["blocks", "planes"])
def test_of_large_volumes_little_is_read(chunks):
    read: list[int] = []
    volume = dask.array.random.default_rng(0).normal(100, 5, (50, 16, 1024, 1024), chunks=chunks)
    report = ssd.diagnose(volume.astype(np.float32).map_blocks(counted(read), meta=np.zeros((0,) * 4, np.float32)))
    assert report.sigma == pytest.approx(5, rel=0.05)
    assert sum(read) < 0.05 * volume.size


def test_places_lie_inside_chunks(tmp_path, rng):
    data = zarr.create_array(tmp_path / "a.zarr", shape=(40, 2000, 3000), chunks=(1, 512, 512), dtype="uint16")
    data[0] = 1
    places = read_places([ssd.open_volume(data, axes="TYX")], 0, "T", rng)
    assert all(place.shape == (4, 256, 256) for place in places)
    assert sum(place.size for place in places) <= PIXELS
    whole = read_places([ssd.open_volume(data[:3, :100, :70], axes="TYX")], 0, "T", rng)
    assert [place.shape for place in whole] == [(3, 100, 70)]


def test_the_choice_of_places_is_seeded(rng):
    volume = ssd.Volume(rng.normal(0, 1, (2, 1050, 1050)), "ZYX")
    assert ssd.diagnose(volume, seed=1).to_json() == ssd.diagnose(volume, seed=1).to_json()
    assert ssd.diagnose(volume, seed=1).sigma != ssd.diagnose(volume, seed=2).sigma


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 40)), "same value everywhere"),
        (np.zeros((40, 40), bool), "boolean mask"),
        (np.eye(4, 40), "too small"),
        (np.zeros((0, 40)), "empty"),
        (np.where(np.eye(40), np.nan, 1.0), "NaN"),
    ],
    ids=["constant", "boolean", "tiny", "empty", "nan"],
)
def test_images_without_noise_to_measure_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        ssd.diagnose(image)


def test_targets_that_do_not_fit_are_refused(frames):
    with pytest.raises(ValueError, match="differ in shape"):
        ssd.diagnose(frames[0], target=frames[1, :50])
    with pytest.raises(ValueError, match="the same as the image"):
        ssd.diagnose(frames[0], target=frames[0].copy())
    with pytest.raises(ValueError, match="in one order"):
        ssd.diagnose(ssd.Volume(frames, "TYX"), target=ssd.Volume(frames, "TXY"))


def test_a_computed_image_has_hardly_any_noise():
    report = ssd.diagnose(np.sqrt(np.add.outer(np.arange(128.0), np.arange(128.0))))
    assert report.snr > 40
    assert "hardly any noise" in " ".join(report.reasons)


def test_the_report_says_all_and_is_plain(frames):
    report = ssd.diagnose(frames, axes="TYX")
    text = report.describe()
    for word in ("gain", "offset", "read noise", "correlation", "saturated", "yes", "--algorithm n2n --pairs frames"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    found = json.loads(json.dumps(report.to_json()))
    assert found["gain"]["low"] <= found["gain"]["value"] <= found["gain"]["high"]
    assert found["algorithm"] == "n2n"
    assert found["assumptions"][0]["holds"] is True
    assert len(found["channels"]) == 1


def test_blocks_give_the_same_as_the_image(frames):
    fit = estimate_noise([frames[0]], offset=100)
    report = ssd.diagnose(frames[0], offset=100)
    assert (fit.gain, fit.read_noise, fit.sigma) == (report.gain, report.read_noise, report.sigma)


def test_a_hidden_read_noise_is_said_to_be_hidden(make, rng):
    image = make.emccd(rng, 100 * make.cells(rng) + 8, 30.0, 4.0)
    assert "hidden by the light's" in ssd.diagnose(image, offset=100).describe()
    image = make.scmos(rng, 100 * make.cells(rng) + 0.5, 2.0, 6.0)
    assert "hidden" not in ssd.diagnose(image, offset=100).describe()


def test_a_diagnosis_can_be_ended_at_its_pauses(rng):
    class Enough(Exception):
        pass

    image = rng.poisson(100, (96, 96))
    seen = []
    with pausing(lambda: seen.append(None)):
        whole = ssd.diagnose(image)
    assert len(seen) > 10
    for end in (0, len(seen) // 2, len(seen) - 1):
        left = iter([None] * end)

        def look(left=left):
            if next(left, Enough) is Enough:
                raise Enough

        with pytest.raises(Enough), pausing(look):
            ssd.diagnose(image)
    assert ssd.diagnose(image).to_json() == whole.to_json()
