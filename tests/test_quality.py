"""Quality without the truth, checked against it: filters whose error is known, on images whose noise is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from napari_ssdenoise.algorithms import Algorithm
from napari_ssdenoise.metrics import FRC_THRESHOLD, choose_data_range, frc, psnr
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.quality import assess
from napari_ssdenoise.quality._noise import measure_noise
from napari_ssdenoise.quality._places import GLANCED, PIXELS
from napari_ssdenoise.quality._smooth import smooth
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Blur(nn.Module):
    """A Gaussian filter that looks like a trained network."""

    activations = 1

    def __init__(self, ndim: int, channels: int, sigma: float) -> None:
        super().__init__()
        self.radius = max(1, int(3 * sigma + 0.5))
        self.stride = (1,) * ndim
        kernel = np.exp(-0.5 * (np.arange(-self.radius, self.radius + 1) / max(sigma, 0.01)) ** 2)
        kernel /= kernel.sum()
        window = np.ones(())
        for _ in range(ndim):
            window = np.multiply.outer(window, kernel)
        convolution = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.layer = convolution(
            channels, channels, 2 * self.radius + 1, padding=self.radius, groups=channels, bias=False
        )
        weights = torch.tensor(window, dtype=torch.float32).expand(self.layer.weight.shape).clone()
        self.layer.weight = nn.Parameter(weights, requires_grad=False)

    def reach(self) -> tuple[int, ...]:
        return (self.radius,) * len(self.stride)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return self.layer(noisy)


@dataclass(frozen=True, kw_only=True)
class Filter(Algorithm):
    key: ClassVar[str] = "filter"
    title: ClassVar[str] = "Gaussian filter"
    reference: ClassVar[str] = ""
    blur: Annotated[float, {"min": 0.0, "max": 9.0, "step": 0.1, "label": "Sigma"}, "Of the filter."] = 1.0
    noise: Annotated[str, {"label": "Noise"}, "Kind."] = "auto"
    sigma: Annotated[float, {"min": 0.0, "step": 0.1, "label": "Noise"}, "Of the noise."] = 0.0

    def build(self, channels: int, pooled: Any) -> Any:
        return Blur(len(pooled), channels, self.blur)

    def loss(self, network: Any, batch: Any, rng: Any) -> Any:
        raise NotImplementedError


def model(
    blur: float, spatial: str = "YX", channels: int = 1, record: dict[str, Any] | None = None, **told: Any
) -> TrainedModel:
    algorithm = Filter(blur=blur, **told)
    geometry = Geometry(spatial, channels, "joint" if channels > 1 else "independent", (False,) * len(spatial))
    network = geometry.build(algorithm).eval()
    return TrainedModel(algorithm, network, geometry, Normalization((100.0,), (20.0,)), record or {})


def scene(*shape: int, seed: int = 3) -> Floats:
    """Return structure as an optical image has it: spots and lines, 20 to 250, none of it finer than the optics."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    points = tuple(rng.integers(0, n, int(np.prod(shape)) // 60) for n in shape)
    np.add.at(image, points, rng.exponential(900, len(points[0])))
    image[..., shape[-2] // 3, :] += 150
    return 40 + smooth(image, 1.8)


def gaussian(clean: Floats, seed: int = 0, sigma: float = 25.0) -> NDArray[np.float32]:
    return (clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)).astype(np.float32)


def camera(clean: Floats, seed: int = 0) -> NDArray[np.float32]:
    """Add photon and read noise at a gain of 4."""
    rng = np.random.default_rng(seed)
    return (4.0 * rng.poisson(clean / 4.0) + rng.normal(0, 5, clean.shape)).astype(np.float32)


@pytest.mark.parametrize("blur", [0.0, 0.7, 1.5, 4.0], ids=["identity", "noisy", "good", "too smooth"])
@pytest.mark.parametrize("noise", [gaussian, camera])
def test_the_estimated_psnr_is_the_true_one(noise: Any, blur: float) -> None:
    clean = scene(256, 256)
    noisy = noise(clean)
    denoiser = model(blur)
    found = assess(denoiser, noisy, data_range=200.0).psnr
    assert found is not None
    assert found.method == "noise level"
    true = psnr(denoiser.predict(noisy), clean, 200.0)
    assert found.value == pytest.approx(true, abs=0.5)
    assert found.low - 0.05 <= true <= found.high + 0.05
    assert found.low < found.value < found.high
    assert found.noisy == pytest.approx(psnr(noisy, clean, 200.0), abs=0.2)


class Remembering(Blur):
    """A filter that knows a part of one image's noise by heart, and tells how far off it is."""

    remembered: torch.Tensor
    told: float

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        mean = self.layer(noisy) + self.remembered
        return torch.cat([mean, torch.full_like(mean, self.told)], 1)


@dataclass(frozen=True, kw_only=True)
class Doubtful(Filter):
    key: ClassVar[str] = "doubtful"
    outputs: ClassVar[tuple[str, ...]] = ("mean", "std")
    tails: ClassVar[float] = 0.9
    mirrored: ClassVar[bool] = False

    def build(self, channels: int, pooled: Any) -> Any:
        return Remembering(len(pooled), channels, self.blur)

    def read_out(self, raw: torch.Tensor, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": raw[:, :1], "std": self.tails * raw[:, 1:]}


def test_noise_that_was_learnt_by_heart_is_told_by_the_models_own_doubt() -> None:
    clean = scene(256, 256)
    noisy = gaussian(clean)
    denoiser = replace(model(1.5), algorithm=Doubtful(blur=1.5))
    network: Any = Doubtful(blur=1.5).build(1, (False, False)).eval()
    network.remembered = torch.tensor((noisy - clean) * 0.02 / 20.0, dtype=torch.float32)[None, None]
    network.told = 0.0
    denoiser = replace(denoiser, network=network)
    error = float(np.sqrt(np.mean((denoiser.predict(noisy) - clean) ** 2)))
    true = psnr(denoiser.predict(noisy), clean, 200.0)
    found = {}
    for told in (0.3, 1.0):
        network.told = told * error / 20.0
        found[told] = assess(denoiser, noisy, data_range=200.0).psnr
    assert found[1.0] is not None
    assert found[0.3] is not None
    assert found[1.0].value == pytest.approx(true, abs=0.5)
    assert found[1.0].low < true < found[1.0].high
    assert found[0.3].value > true + 1.0


@pytest.mark.parametrize("kind", ["frames", "target", "images"])
def test_other_views_of_the_scene_give_the_psnr_without_knowing_the_noise(kind: str) -> None:
    clean = scene(192, 192)
    rng = np.random.default_rng(1)
    # Noise that no noise model here describes: correlated, and with a lamp that flickers.
    views = np.stack([clean * rng.normal(1, 0.03) + 40 * smooth(rng.normal(0, 1, clean.shape), 0.7) for _ in range(4)])
    denoiser = model(2.0)
    if kind == "target":
        found = assess(denoiser, views[0], target=list(views[1:]), data_range=200.0)
    else:
        source: Any = Volume(views, "TYX") if kind == "frames" else list(views)
        found = assess(denoiser, source, data_range=200.0)
    assert found.psnr is not None
    assert found.psnr.method == "repeats"
    true = psnr(np.stack([denoiser.predict(view) for view in views]), np.stack([clean] * 4), 200.0)
    assert found.psnr.value == pytest.approx(true, abs=0.3)
    assert any("correlated" in warning for warning in found.warnings)


def test_frames_of_a_moving_scene_are_no_repeats() -> None:
    clean = scene(128, 192)
    movie = np.stack([gaussian(np.roll(clean, 5 * t, 1), seed=t, sigma=12) for t in range(8)])
    denoiser = model(1.0)
    found = assess(denoiser, Volume(movie, "TYX"), data_range=200.0).psnr
    assert found is not None
    assert found.method == "noise level"
    truth = np.stack([np.roll(clean, 5 * t, 1) for t in range(8)])
    assert found.value == pytest.approx(psnr(denoiser.predict(Volume(movie, "TYX")), truth, 200.0), abs=0.5)


def test_images_of_different_scenes_are_all_looked_at() -> None:
    images = [gaussian(scene(128, 128, seed=s), seed=s) for s in range(3)]
    found = assess(model(1.5), images, data_range=200.0)
    assert found.psnr is not None
    assert found.psnr.method == "noise level"
    assert found.pixels == 3 * 128 * 128


def test_a_target_of_another_scene_is_a_warning() -> None:
    found = assess(model(1.5), gaussian(scene(128, 128)), target=gaussian(scene(128, 128, seed=9), seed=1))
    assert any("same scene" in warning for warning in found.warnings)


def test_correlated_noise_of_one_view_tells_nothing_about_the_error() -> None:
    clean = scene(192, 192)
    noise = smooth(np.random.default_rng(0).normal(0, 1, clean.shape), 0.9)
    found = assess(model(1.5), clean + 25 * noise / noise.std())
    assert found.psnr is None
    assert found.frc is None
    assert any("second exposure" in warning for warning in found.warnings)
    assert "unknown" in found.describe()


def test_structure_that_was_removed_is_seen() -> None:
    noisy = gaussian(scene(256, 256))
    good, smeared = (assess(model(blur), noisy) for blur in (0.8, 4.0))
    assert good.whiteness is not None
    assert smeared.whiteness is not None
    assert smeared.whiteness.score > 3 * good.whiteness.score
    assert smeared.whiteness.verdict == "correlated"
    assert good.residual_signal_correlation is not None
    assert smeared.residual_signal_correlation is not None
    assert good.residual_signal_correlation < 0.02 < 0.1 < smeared.residual_signal_correlation
    assert any("too smooth" in warning for warning in smeared.warnings)
    assert not good.warnings


def test_the_residual_of_noise_alone_is_as_expected() -> None:
    flat = gaussian(np.full((256, 256), 100.0))
    found = assess(model(1.0), flat, data_range=200.0)
    assert found.whiteness is not None
    assert found.whiteness.verdict == "white"
    assert set(found.whiteness.measured) == {"Y", "X"}
    # A blur leaves a little of every pixel's noise in its neighbours, and so the residual is not quite white.
    assert found.whiteness.expected["X"][0] == pytest.approx(found.whiteness.measured["X"][0], abs=0.02)
    assert found.whiteness.expected["X"][0] < -0.05


def test_saturation_is_a_warning() -> None:
    noisy = np.minimum(gaussian(scene(128, 128)), 130)
    assert any("saturated" in warning for warning in assess(model(1.0), noisy).warnings)


def test_a_result_as_noisy_as_the_image_is_a_warning() -> None:
    found = assess(model(0.0), gaussian(scene(128, 128)))
    assert any("hardly closer" in warning for warning in found.warnings)


@pytest.mark.parametrize("views", [1, 2], ids=["halves", "views"])
def test_resolution_is_where_the_correlation_with_the_truth_falls(views: int) -> None:
    clean = scene(256, 256)
    noisy = gaussian(clean)
    denoiser = model(1.0)
    found = assess(denoiser, noisy, target=gaussian(clean, seed=1) if views == 2 else None).frc
    assert found is not None
    assert found.method == ("views" if views == 2 else "halves")
    result = denoiser.predict(noisy, precision="float32")
    true = frc(result, clean)
    assert found.pixels == pytest.approx(true.resolution(FRC_THRESHOLD**0.5), rel=0.15)
    assert found.unit == "pixel"
    # The whole curve is the squared correlation with the truth; halves have half of the light.
    difference = np.array(found.correlation)[2:60] - np.array(true.correlation)[2:60] ** 2
    assert np.abs(difference).mean() < (0.05 if views == 2 else 0.12)


def test_resolution_has_the_units_of_the_image() -> None:
    image = Volume(gaussian(scene(128, 128)), "YX", (0.2, 0.2), ("micrometer",) * 2)
    found = assess(model(1.0), image)
    assert found.frc is not None
    assert found.frc.pixels is not None
    assert found.frc.distance == pytest.approx(0.2 * found.frc.pixels)
    assert "micrometer" in found.describe()


def test_noise_that_was_given_narrows_the_interval() -> None:
    clean = scene(256, 256)
    noisy = gaussian(clean)
    told = {"noise": "gaussian", "sigma": 25.0}
    known = assess(model(1.0, record={"chosen": []}, **told), noisy, data_range=200.0).psnr
    found_out = assess(model(1.0, record={"chosen": ["noise", "sigma"]}, **told), noisy, data_range=200.0).psnr
    old = assess(model(1.0, **told), noisy, data_range=200.0).psnr
    assert known is not None
    assert found_out is not None
    assert known.high - known.low < 0.8 * (found_out.high - found_out.low)
    assert found_out == old  # models that do not say so may have estimated it
    assert known.low <= psnr(model(1.0).predict(noisy), clean, 200.0) <= known.high


def test_the_result_at_hand_is_judged() -> None:
    clean = scene(128, 128)
    noisy = gaussian(clean)
    better = model(1.5).predict(noisy)
    worse = better + 20 * np.sin(np.arange(128) / 3).astype(np.float32)
    first, second = (assess(model(1.5), noisy, denoised=d, data_range=200.0).psnr for d in (better, worse))
    assert first is not None
    assert second is not None
    own = assess(model(1.5), noisy, data_range=200.0).psnr
    assert own is not None
    assert first.value == pytest.approx(own.value, abs=0.02)
    assert second.value == pytest.approx(psnr(worse, clean, 200.0), abs=0.5)


@pytest.mark.parametrize(
    ("axes", "shape", "spatial", "channels"),
    [
        ("ZYX", (12, 96, 100), "ZYX", 1),
        ("CZYX", (2, 9, 64, 64), "ZYX", 1),
        ("TCYX", (3, 2, 64, 70), "YX", 1),
        ("YXS", (80, 90, 3), "YX", 3),
        ("XYZ", (64, 72, 5), "YX", 1),
        ("TYX", (6, 64, 64), "TYX", 1),
        ("YX", (20, 30), "YX", 1),
        ("YX", (5, 7), "YX", 1),
    ],
    ids=str,
)
def test_any_axes_and_sizes(axes: str, shape: tuple[int, ...], spatial: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(100, 10, shape).astype(np.float32), axes)
    found = assess(model(1.0, spatial, channels), image, data_range=200.0)
    assert found.pixels > 0
    assert found.psnr is None or found.psnr.noisy == pytest.approx(26.0, abs=0.7)
    assert json.loads(json.dumps(found.to_json()))["pixels"] == found.pixels
    if min(image.sizes[a] for a in "YX") < 8:
        assert found.psnr is None
        assert any("too small" in warning for warning in found.warnings)


def test_channels_have_their_own_noise() -> None:
    clean = scene(192, 192)
    image = np.stack([gaussian(clean, sigma=5), gaussian(clean, seed=1, sigma=40)])
    denoiser = model(1.0)
    found = assess(denoiser, Volume(image, "CYX"), data_range=200.0).psnr
    assert found is not None
    assert found.value == pytest.approx(
        psnr(denoiser.predict(Volume(image, "CYX")), np.stack([clean] * 2), 200.0), abs=0.4
    )


class Counting:
    """A huge image, made where it is looked at."""

    shape, dtype = (3000, 4096, 4096), np.dtype(np.uint16)

    def __init__(self) -> None:
        self.voxels = 0

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.uint16]:
        sizes = [len(range(*k.indices(n))) for k, n in zip(key, self.shape, strict=True)]
        self.voxels += int(np.prod(sizes))
        return np.random.default_rng(self.voxels).poisson(60, sizes).astype(np.uint16)


def test_of_a_huge_volume_only_a_few_places_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIXELS, 2, 1 << 16)
    data = Counting()
    found = assess(model(1.0), Volume(data, "ZYX"))
    assert 1 << 16 <= found.pixels < 1 << 17
    assert data.voxels < 12 * found.pixels + 2 * GLANCED


def test_equal_seeds_look_at_equal_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIXELS, 2, 1 << 12)
    image = np.stack([gaussian(scene(128, 128, seed=s), seed=s) for s in range(4)])
    first, again, other = (assess(model(1.0), Volume(image, "ZYX"), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_range_is_that_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = scene(128, 128)
    noisy = gaussian(clean)
    found = assess(model(1.0), noisy).psnr
    assert found is not None
    assert found.data_range == pytest.approx(
        choose_data_range(model(1.0).predict(noisy, precision="float32")), rel=1e-3
    )
    # Where not all is denoised, the brightest places count nevertheless.
    monkeypatch.setitem(PIXELS, 2, 1 << 14)
    stack = np.stack([gaussian(clean * brightness, seed=k) for k, brightness in enumerate((1, 3, 1, 0.5, 0.2))])
    part = assess(model(1.0), Volume(stack, "ZYX"))
    assert part.pixels == 1 << 14
    assert part.psnr is not None
    assert part.psnr.data_range == pytest.approx(choose_data_range(model(1.0).predict(Volume(stack, "ZYX"))), rel=0.15)
    eight = assess(model(1.0), np.clip(noisy, 0, 255).astype(np.uint8)).psnr
    assert eight is not None
    assert eight.data_range == 255


def test_held_out_loss_is_that_of_the_training() -> None:
    noisy = gaussian(scene(96, 96))
    falling = [(step, 0.1 * step, 1 / step) for step in range(1, 10)]
    found = assess(model(0.8, record={"held_out": falling}), noisy)
    assert found.held_out_loss == pytest.approx(1 / 9)
    assert ("held-out loss", "0.1111") in found.rows()
    assert not found.warnings
    rising = [*falling, (10, 1.0, 0.5), (11, 1.1, 0.6)]
    assert any("by heart" in w for w in assess(model(0.8, record={"held_out": rising}), noisy).warnings)
    assert assess(model(1.0), noisy).held_out_loss is None


def test_the_report_is_short_and_plain() -> None:
    found = assess(model(1.0), gaussian(scene(128, 128)))
    lines = found.describe().splitlines()
    assert lines[0].startswith("PSNR, estimated")
    assert len(lines) <= 6
    plain = found.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) >= {"psnr", "frc", "whiteness", "residual_signal_correlation", "held_out_loss", "warnings"}
    assert "warning: beware" in replace(found, warnings=("beware",)).describe()


def test_what_does_not_fit_is_refused() -> None:
    noisy = gaussian(scene(64, 64))
    with pytest.raises(ValueError, match="same field of view"):
        assess(model(1.0), noisy, target=noisy[:32])
    with pytest.raises(ValueError, match="Give one for each image"):
        assess(model(1.0), [noisy, noisy], target=[noisy, noisy, noisy])
    with pytest.raises(ValueError, match="ZYX"):
        assess(model(1.0, "ZYX"), noisy)
    noisy[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        assess(model(1.0), noisy)


@pytest.mark.parametrize("along", [0.0, 0.08], ids=["white", "along lines"])
def test_the_noise_is_measured_to_a_few_percent(along: float) -> None:
    clean = scene(384, 384)
    white = np.random.default_rng(0).normal(0, 1, clean.shape)
    # A detector that is a little slow mixes a pixel with the one before it on the line.
    noise = (white + along * np.roll(white, 1, 1)) / np.sqrt(1 + along**2) * np.sqrt(3 * clean + 30)
    found = measure_noise([(clean + noise)[None]], frames=False)
    assert found is not None
    assert found.gain * clean.mean() + found.floor == pytest.approx((noise**2).mean(), rel=0.03)
    assert found.error < 0.03
    assert found.along_y == 0
    assert found.along_x == pytest.approx(along, abs=0.03)
    drawn = found.draw(np.full((400, 400), 100.0), np.random.default_rng(1))
    assert drawn.var() == pytest.approx(330, rel=0.05)
    assert (drawn[:, 1:] * drawn[:, :-1]).mean() / drawn.var() == pytest.approx(found.along_x, abs=0.02)
