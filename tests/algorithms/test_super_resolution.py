"""Super-resolution: its loss, the blurs that it takes and measures, and the images it works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.algorithms._blur import degradation_of, estimate_covariance
from napari_ssdenoise.axes import Layout
from napari_ssdenoise.engine.patches import Batch
from napari_ssdenoise.engine.scenes import View
from napari_ssdenoise.engine.trainer import Trainer
from napari_ssdenoise.metrics import psnr
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.networks.resnet_sr import Still, SuperResolver
from napari_ssdenoise.ops.degrade import Degradation
from napari_ssdenoise.ops.kernels import gaussian, rotated
from napari_ssdenoise.superres import Upscaler, upscale
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

MICROMETERS = ("micrometer", "micrometer")
# Small patches: the network is as large as ever.
FEW: dict[str, Any] = {"adapt": 2, "patch": 16, "batch": 1, "precision": "float32"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def filtered(n: int, seed: int, transfer: NDArray[np.float64] | Any) -> NDArray[np.float64]:
    """Return noise of variance 1 whose spectrum is a function of the frequency."""
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n))
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(n, n))) * transfer(frequency)
    spectrum[0, 0] = 0
    image = np.fft.irfft2(spectrum, (n, n))
    return np.asarray(image / image.std())


def natural(n: int = 256, seed: int = 0) -> NDArray[np.float64]:
    """Return a texture whose power falls with the frequency as in sharp images of natural things: f to the -2.8."""
    return filtered(n, seed, lambda f: np.maximum(f, 1 / n) ** -1.4)


def cells(n: int = 192) -> NDArray[np.float32]:
    """Return bodies of several sizes with sharp edges, about 20 to 200."""
    image = np.zeros((n, n))
    for seed, size in enumerate((10, 6, 4)):
        smooth = filtered(n, seed, lambda f, size=size: np.exp(-2 * (np.pi * f * size) ** 2))
        image += 1 / (1 + np.exp(-2.5 * size * smooth))
    return (20 + 60 * image).astype(np.float32)


def blurred(
    sharp: NDArray[Any], covariance: ArrayLike, factors: tuple[int, ...] = (2, 2), grid: Any = "registered"
) -> NDArray[np.float32]:
    degradation = Degradation.gaussian(covariance, factors, grid)
    return degradation.down(torch.from_numpy(np.asarray(sharp, np.float64))[None, None])[0, 0].numpy().astype("float32")


def view_of(volume: Volume, spatial: str = "YX") -> View:
    layout = Layout.choose(volume.axes, volume.shape, spatial)
    return View(volume, layout, next(iter(layout.indices(volume.shape))))


def plain_view(*shape: int, **geometry: Any) -> View:
    image = np.random.default_rng(0).normal(100, 20, shape or (40, 40)).astype(np.float32)
    return view_of(Volume(image, "ZYX"[-image.ndim :], **geometry), "ZYX"[-image.ndim :])


# The loss


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (2, 2, 2)], ids=str)
def test_without_a_network_the_loss_is_the_error_of_interpolation(factors: tuple[int, ...]) -> None:
    """However the patch is turned, since this blur is round and the grid has no preferred end."""
    degradation = Degradation.gaussian([1.0] * len(factors), factors)
    fathers = torch.randn((2, 1, *(12,) * len(factors)), generator=torch.Generator().manual_seed(0))
    expected = float((degradation.up(degradation.down(fathers)) - fathers).abs().mean())
    network: Any = SuperResolver(Still(len(factors)), degradation)
    depth = factors[0] if len(factors) == 3 else 1
    algorithm = get_algorithm("mzsr", factor=factors[-1], factor_z=depth, scales=False)
    for seed in range(8):
        loss = algorithm.loss(network, Batch(fathers, fathers), torch.Generator().manual_seed(seed))
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_blur_is_not_turned_with_the_image() -> None:
    degradation = Degradation.gaussian((4.0, 0.1), (2, 2))
    stripes = torch.sin(torch.arange(16.0)).expand(16, 16)[None, None].contiguous()  # along X
    network: Any = SuperResolver(Still(2), degradation)
    algorithm = get_algorithm("mzsr", scales=False)
    both = {
        round(float(algorithm.loss(network, Batch(stripes, stripes), torch.Generator().manual_seed(s))), 5)
        for s in range(16)
    }
    along_x, along_y = (
        float((degradation.up(degradation.down(image)) - image).abs().mean())
        for image in (stripes, stripes.transpose(2, 3))
    )
    # Flipping the sine changes a little at the borders.
    assert min(both) == pytest.approx(along_x, rel=0.1)
    assert max(both) == pytest.approx(along_y, rel=0.1)
    assert along_y > 1.5 * along_x


def test_depth_is_learnt_from_the_planes() -> None:
    degradation = Degradation.gaussian((2.0, 0.0, 0.0), (4, 1, 1))
    stack = torch.randn((2, 1, 5, 16, 16), generator=torch.Generator().manual_seed(0))
    network: Any = SuperResolver(Still(2), degradation)
    algorithm = get_algorithm("mzsr", factor=1, factor_z=4)
    found = {
        round(float(algorithm.loss(network, Batch(stack, stack), torch.Generator().manual_seed(s))), 5)
        for s in range(16)
    }
    expected = []
    for axis in (3, 4):
        lines = stack.movedim(axis, 2).flatten(3)[..., None]  # (B, 1, along the axis, all others, 1)
        again = degradation.up(degradation.down(lines))
        expected.append(float((again - lines).abs().mean()))
    for value in found:
        assert min(abs(value - e) for e in expected) < 2e-5
    assert len(found) == 2


def test_noise_on_the_son() -> None:
    flat = torch.zeros((1, 1, 32, 32))
    network: Any = SuperResolver(Still(2), Degradation.gaussian((1.0, 1.0), (2, 2)))
    losses = [
        float(get_algorithm("mzsr", son_noise=noise).loss(network, Batch(flat, flat), torch.Generator().manual_seed(0)))
        for noise in (0.0, 0.1, 0.2)
    ]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert 0.02 < losses[1] < 0.1
    assert losses[2] == pytest.approx(2 * losses[1], rel=1e-4)


def test_a_few_updates_learn_and_beat_interpolation() -> None:
    sharp = cells()
    coarse = blurred(sharp, (1.5, 1.5))
    upscaler = Upscaler(
        coarse, "zssr", adapt=60, kernel="1.2247", patch=48, batch=2, precision="float32", back_projections=0
    )
    losses = [step.loss for step in upscaler]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    found = upscaler.model.predict(coarse, precision="float32")
    assert psnr(found, sharp) > psnr(upscale(coarse, "bicubic"), sharp) + 2


def test_no_filter_of_zssr_learns_to_answer_to_brightness() -> None:
    """Filters whose weights move alike shift a smooth image back and forth until they answer to nothing."""
    upscaler = Upscaler(cells(48), "zssr", kernel="1.2", **FEW)
    next(upscaler)
    for kernel in (p for p in upscaler.network.body.parameters() if p.ndim > 1):
        assert kernel.grad.std() > 0
        assert torch.all(kernel.grad.mean((1, 2, 3)).abs() < 1e-4 * kernel.grad.std())


@pytest.mark.parametrize("key", ["zssr", "mzsr"])
def test_planes_are_learnt_from_in_smaller_copies_too(key: str) -> None:
    """Sizes that a network would not take would be refused by the degradation."""
    degradation = Degradation.gaussian((1.0, 1.0), (3, 3))
    image = torch.randn((1, 1, 36, 36), generator=torch.Generator().manual_seed(0))
    network: Any = SuperResolver(Still(2), degradation)
    found = {
        scales: {
            round(
                float(
                    get_algorithm(key, factor=3, scales=scales).loss(
                        network, Batch(image, image), torch.Generator().manual_seed(seed)
                    )
                ),
                3,
            )
            for seed in range(24)
        }
        for scales in (False, True)
    }
    assert len(found[False]) == 1
    assert len(found[True]) > 4


# What the user says about the blur


@pytest.mark.parametrize(
    ("text", "variances"),
    [
        ("1.5", (2.25, 2.25)),
        (" 2 ", (4, 4)),
        ("1e0", (1, 1)),
        ("1.5, 0.8", (2.25, 0.64)),
        ("1.5,0.8 px", (2.25, 0.64)),
        ("0.3 um", (2.25, 1)),  # new pixels are 0.2 and 0.3 micrometers large
        ("0.3um", (2.25, 1)),
        ("0.3 \u00b5m", (2.25, 1)),
        ("0.3 \u03bcm", (2.25, 1)),
        ("0.3 micrometer", (2.25, 1)),
        ("300 nm", (2.25, 1)),
        ("3e-4 mm", (2.25, 1)),
        ("450,300 nm", (2.25**2, 1)),
    ],
)
def test_standard_deviations(text: str, variances: tuple[float, float]) -> None:
    view = plain_view(40, 44, scale=(0.4, 0.6), units=MICROMETERS)
    found = degradation_of([view], (2, 2), text, "registered")
    np.testing.assert_allclose(found.kernel, gaussian(variances, (2, 2)), atol=1e-6)


def test_units_of_a_stack() -> None:
    view = plain_view(12, 40, 44, scale=(2.0, 0.5, 0.5), units=("micrometer",) * 3)
    found = degradation_of([view], (4, 1, 1), "800 nm", "registered")  # new planes are 0.5 micrometers apart
    np.testing.assert_allclose(found.kernel, gaussian((1.6**2, 0, 0), (4, 1, 1)), atol=1e-6)
    found = degradation_of([view], (4, 1, 1), "800,400,0 nm", "registered")
    np.testing.assert_allclose(found.kernel, gaussian((1.6**2, 0.8**2, 0), (4, 1, 1)), atol=1e-6)


def test_bicubic() -> None:
    found = degradation_of([plain_view()], (3, 3), " Bicubic", "registered")
    np.testing.assert_array_equal(found.kernel, Degradation.bicubic((3, 3)).kernel)


def spot(*shape: int) -> NDArray[np.float32]:
    """Return a measured spot that lies off the middle."""
    places = np.meshgrid(*(np.arange(n) - 0.45 * n for n in shape), indexing="ij")
    return np.exp(-sum(p**2 for p in places) / 3).astype(np.float32)


@pytest.mark.parametrize("name", ["psf.npy", "psf.tif", "2.tif", "1e3.npy"])
def test_measured_spots(name: str, tmp_path: Path) -> None:
    """Even where the name begins as a number does."""
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, spot(13, 12))
    else:
        tifffile.imwrite(path, (60000 * spot(13, 12)).astype(np.uint16))
    found = degradation_of([plain_view()], (2, 2), str(path), "registered")
    np.testing.assert_allclose(found.kernel, Degradation.measured(spot(13, 12), (2, 2)).kernel, atol=1e-4)


def test_a_file_in_the_present_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("2.tif", spot(13, 12))
    found = degradation_of([plain_view()], (2, 2), "2.tif", "registered")
    np.testing.assert_allclose(found.kernel, Degradation.measured(spot(13, 12), (2, 2)).kernel, atol=1e-4)


@pytest.mark.parametrize(
    ("psf_shape", "image_shape", "factors"),
    [
        ((9, 11, 11), (12, 30, 30), (2, 2, 2)),
        ((9, 1, 1), (12, 30, 30), (4, 1, 1)),
        ((1, 11, 11), (30, 30), (2, 2)),
        ((11, 11), (12, 30, 30), (1, 2, 2)),
    ],
    ids=str,
)
def test_spots_of_as_many_axes_as_the_image(
    psf_shape: tuple[int, ...], image_shape: tuple[int, ...], factors: tuple[int, ...], tmp_path: Path
) -> None:
    np.save(tmp_path / "psf.npy", spot(*psf_shape))
    found = degradation_of([plain_view(*image_shape)], factors, str(tmp_path / "psf.npy"), "registered")
    assert found.kernel.ndim == len(factors)
    assert found.kernel.sum() == pytest.approx(1, rel=1e-5)
    sizes = ((1,) * 3 + psf_shape)[-len(factors) :]
    assert all(n - s in (0, 1, 2, 3) for n, s in zip(found.kernel.shape, sizes, strict=True))


def bad_files(folder: Path) -> None:
    np.save(folder / "complex.npy", np.ones((5, 5), complex))
    np.save(folder / "large.npy", spot(99, 99))
    np.save(folder / "deep.npy", spot(5, 5, 5))
    np.save(folder / "nan.npy", np.full((5, 5), np.nan))
    np.save(folder / "dark.npy", np.zeros((5, 5)))
    (folder / "broken.tif").write_bytes(b"II*\0 this is no image")
    (folder / "notes.txt").write_text("0.5")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("sharp", "kernel='sharp' is neither a number, 'auto', 'bicubic' nor a file that exists"),
        ("", "neither a number"),
        ("missing.tif", "nor a file that exists"),
        ("1e", "neither a number"),
        ("-1", r"0 or more\), one for each of the axes YX"),
        ("1,2,3", "must be one standard deviation, or 2 of them"),
        ("0.3 parsec", "known in micrometer"),
        ("9", "the blur is 66 new pixels wide, but the image has only 48"),
        ("complex.npy", "complex128: a point-spread function holds real numbers"),
        ("large.npy", "the blur is 100 new pixels wide, but the image has only 48"),
        ("deep.npy", r"the kernel has 3 axes \(5, 5, 5\)"),
        ("nan.npy", "finite values"),
        ("dark.npy", "sum above zero"),
        ("broken.tif", "broken.tif"),
        ("notes.txt", "notes.txt"),
    ],
)
def test_bad_blurs(kernel: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad_files(tmp_path)
    view = plain_view(24, 24, scale=(0.4, 0.4), units=MICROMETERS)
    with pytest.raises(ValueError, match=message):
        degradation_of([view], (2, 2), kernel, "registered")


def test_a_unit_needs_a_pixel_size() -> None:
    with pytest.raises(ValueError, match=r"'um', but the pixels of 'image' are known in no unit.*set the image's"):
        degradation_of([plain_view()], (2, 2), "0.3 um", "registered")


def test_bicubic_is_registered() -> None:
    with pytest.raises(ValueError, match="always lies on the registered grid"):
        degradation_of([plain_view()], (2, 2), "bicubic", "topleft")


@pytest.mark.parametrize("method", ["mzsr", "zssr", "ibp", "bicubic"])
def test_factors_of_one_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match="factor 1 leaves the image as it is"):
        upscale(np.zeros((64, 64)), method, factor=1)


@pytest.mark.parametrize(
    ("shape", "axes", "settings", "message"),
    [
        ((64, 64), "YX", {"factor_z": 2}, "has axes YX and no Z to enlarge. Name its axes, as in axes='ZYX'"),
        ((20, 64, 64), "TYX", {"factor": 1, "factor_z": 2}, "no Z to enlarge"),
        ((3, 64, 64), "ZYX", {"factor_z": 2}, "has only 3 planes: too few .* by 2, which takes at least 4"),
        ((5, 64, 64), "ZYX", {"factor": 1, "factor_z": 3}, "which takes at least 6"),
        ((64, 10), "YX", {}, "has only 10 pixels along X: too few to learn from at factor 2, which takes at least 16"),
        ((31, 64), "YX", {"factor": 4}, "has only 31 pixels along Y"),
        ((64, 64), "YX", {"factor": 9}, r"factor=9 is outside \[1, 8\]"),
        ((64, 64), "YX", {"grid": "centre"}, "choose one of registered, topleft"),
    ],
)
def test_images_that_cannot_be_enlarged(
    shape: tuple[int, ...], axes: str, settings: dict[str, Any], message: str
) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        upscale(Volume(image, axes), "ibp", **settings)


def test_depth_is_not_learnt_in_planes() -> None:
    stack = Volume(np.random.default_rng(0).normal(size=(8, 32, 32)).astype(np.float32), "ZYX")
    with pytest.raises(ValueError, match="learn in 3D: choose spatial='ZYX'"):
        Trainer(get_algorithm("zssr", factor_z=2), stack, steps=1, spatial="YX")


def test_factors_4_of_both_are_two_runs_for_mzsr() -> None:
    stack = Volume(np.random.default_rng(0).normal(size=(8, 32, 32)).astype(np.float32), "ZYX")
    with pytest.raises(ValueError, match="enlarge in two runs"):
        Upscaler(stack, "mzsr", factor=2, factor_z=2)


# The blur that an image tells


@pytest.mark.parametrize("variance", [0.6, 1.5, 4.0])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_round_blur_is_found(variance: float, factor: int) -> None:
    """In pixels of the enlarged image; what is blurred by less than the sampling cannot be known as well."""
    variance *= (factor / 2) ** 2
    coarse = blurred(natural(252), (variance, variance), (factor, factor))
    found = estimate_covariance([view_of(Volume(coarse, "YX"))], (factor, factor))
    values = np.linalg.eigvalsh(found)
    assert variance / 1.4 < values[0] <= values[1] < variance * 1.4


@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 2, -0.5])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_lopsided_blur_is_found(angle: float, noise: float) -> None:
    covariance = rotated((4.0, 1.0), angle)
    coarse = blurred(natural(), covariance)
    coarse = coarse + noise * np.random.default_rng(1).normal(size=coarse.shape)
    found = estimate_covariance([view_of(Volume(100 + 30 * coarse, "YX"))], (2, 2))
    values, vectors = np.linalg.eigh(found)
    np.testing.assert_allclose(found, found.T)
    assert 1 / 2 < values[0] < 2
    assert 4 / 2 < values[1] < 4 * 2
    longest = np.linalg.eigh(covariance)[1][:, 1]
    assert abs(vectors[:, 1] @ longest) > np.cos(np.radians(10))


def test_the_blur_is_that_of_all_images_channels_and_planes() -> None:
    movie = np.stack([blurred(natural(128, seed), (2.0, 2.0)) for seed in range(4)])
    volume = Volume(movie, "TYX")
    layout = Layout.choose("TYX", movie.shape, "YX")
    found = estimate_covariance([View(volume, layout, (t,)) for t in range(4)], (2, 2))
    np.testing.assert_allclose(np.diag(found), 2, rtol=0.4)


def test_blur_along_z_is_a_slice() -> None:
    stack = np.stack([blurred(natural(128, seed), (2.0, 2.0)) for seed in range(4)])
    view = view_of(Volume(stack, "ZYX"), "ZYX")
    found = estimate_covariance([view], (4, 1, 1))
    np.testing.assert_allclose(found, np.diag([(4 / 2.355) ** 2, 0, 0]))
    both = estimate_covariance([view], (2, 2, 2))
    assert both[0, 0] == pytest.approx((2 / 2.355) ** 2)
    np.testing.assert_allclose(np.diag(both)[1:], 2, rtol=0.4)


@pytest.mark.parametrize("shape", [(20, 40), (16, 16), (63, 200)], ids=str)
@pytest.mark.parametrize("kind", ["noise", "ramp"])
def test_whatever_the_image_the_estimate_is_of_use(shape: tuple[int, int], kind: str) -> None:
    noise = np.random.default_rng(0).normal(size=shape)
    image = noise if kind == "noise" else np.add.outer(np.arange(shape[0]), np.arange(shape[1])) + 1e-3 * noise
    found = degradation_of([view_of(Volume(image.astype(np.float32), "YX"))], (2, 2), "auto", "registered")
    assert np.isfinite(found.kernel).all()
    assert found.kernel.sum() == pytest.approx(1, rel=1e-5)
    assert max(found.kernel.shape) <= 2 * (2 * 4 * 2 + 1)


# Images


def test_a_saved_model_gives_the_same(tmp_path: Path) -> None:
    coarse = blurred(cells(96), (1.5, 1.5))
    upscaler = Upscaler(coarse, "zssr", kernel="1.9", **FEW)
    for _ in upscaler:
        pass
    expected = upscaler.model.predict(coarse, precision="float32")
    for name in ("x.model", "x.zip"):
        loaded = TrainedModel.load(upscaler.model.save(tmp_path / name))
        assert loaded.algorithm == upscaler.algorithm
        np.testing.assert_array_equal(loaded.predict(coarse, precision="float32"), expected)
        np.testing.assert_array_equal(loaded.network.degradation.kernel, upscaler.kernel)


def test_training_goes_on_from_a_checkpoint() -> None:
    coarse = blurred(cells(96), (1.5, 1.5))
    whole = Upscaler(coarse, "zssr", **{**FEW, "adapt": 4})
    losses = [step.loss for step in whole]
    first = Upscaler(coarse, "zssr", **{**FEW, "adapt": 4})
    kept = [next(first).loss, next(first).loss]
    second = Upscaler(coarse, "zssr", **{**FEW, "adapt": 4})
    second.resume(first.checkpoint())
    assert kept + [step.loss for step in second] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("method", ["ibp", "zssr"])
@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [((24, 20, 3), "YXS", "uint8"), ((2, 24, 20), "CYX", "uint16"), ((2, 2, 3, 20, 24), "TZCYX", "float32")],
    ids=str,
)
def test_colours_and_channels(method: str, shape: tuple[int, ...], axes: str, dtype: str) -> None:
    image = np.random.default_rng(0).uniform(10, 240, shape).astype(dtype)
    settings = {"kernel": "1"} if method == "ibp" else {"kernel": "1", **FEW}
    found = upscale(Volume(image, axes), method, **settings)
    assert found.axes == axes
    assert found.shape == tuple(n * (2 if a in "YX" else 1) for n, a in zip(shape, axes, strict=True))
    assert found.dtype == np.float32
    assert np.isfinite(found[...]).all()
    if method == "ibp":
        data = np.asarray(found)
        batch = [d for d, a in enumerate(axes) if a not in "YX"]
        for index in np.ndindex(*(shape[d] for d in batch)):
            key = [slice(None)] * len(shape)
            for d, i in zip(batch, index, strict=True):
                key[d] = i
            alone = np.asarray(upscale(image[tuple(key)].astype(np.float32), "ibp", kernel="1"))
            np.testing.assert_allclose(data[tuple(key)], alone, atol=0.1)


def spotted(dtype: str, bright: float) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    image = rng.normal(20, 2, (40, 40))
    image[8::12, 8::12] = bright
    return image.astype(dtype)


@pytest.mark.parametrize(("dtype", "bright"), [("uint8", 250), ("uint16", 65000), ("float32", 1e6)])
@pytest.mark.parametrize("method", ["ibp", "zssr"])
def test_bright_spots_are_not_clipped(method: str, dtype: str, bright: float, tmp_path: Path) -> None:
    image = spotted(dtype, bright)
    settings = {"kernel": "1"} if method == "ibp" else {"kernel": "1", **FEW}
    upscaler = Upscaler(image, method, **settings)
    for _ in upscaler:
        pass
    found = upscaler.model.predict(image, precision="float32")
    near = [found[y : y + 2, x : x + 2].mean() for y in range(16, 80, 24) for x in range(16, 80, 24)]
    assert min(near) > 0.8 * bright
    assert found.max() > image.max()  # a sharper spot is a brighter one
    # In a file of the same dtype, what does not fit is cut off and does not wrap around.
    for _ in upscaler.model.predict_into(image, tmp_path / "out.npy", dtype=dtype, precision="float32"):
        pass
    written = np.load(tmp_path / "out.npy")
    limits = np.iinfo(dtype) if dtype.startswith("u") else np.finfo(dtype)
    np.testing.assert_allclose(written, np.clip(found, limits.min, limits.max), rtol=1e-5, atol=0.51)


def _along(settings: dict[str, int]) -> tuple[int, int, int]:
    return settings.get("factor_z", 1), settings["factor"], settings["factor"]


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"factor": 2, "factor_z": 2}, (10, 48, 44)),
        ({"factor": 1, "factor_z": 3}, (18, 24, 28)),
        ({"factor": 2}, (5, 48, 44)),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["ibp", "zssr"])
def test_stacks(method: str, settings: dict[str, int], shape: tuple[int, ...]) -> None:
    coarse = tuple(n // f for n, f in zip(shape, _along(settings), strict=True))
    stack = Volume(np.random.default_rng(0).normal(100, 20, coarse).astype(np.float32), "ZYX")
    options = {**settings, "back_projections": 1} if method == "ibp" else {**settings, **FEW, "back_projections": 0}
    found = upscale(stack, method, **options)
    assert found.shape == shape
    assert np.isfinite(np.asarray(found)).all()


# Meta-learned weights


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("adapt", [0, 2])
def test_mzsr_runs(factor: int, adapt: int) -> None:
    coarse = blurred(cells(144), (1.5, 1.5), (factor, factor))
    found = np.asarray(upscale(coarse, "mzsr", **{**FEW, "patch": 24, "adapt": adapt, "factor": factor}))
    assert found.shape == (144, 144)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("adapt", [0, 2])
def test_mzsr_runs_along_z(adapt: int) -> None:
    stack = np.stack([cells(96)[y : y + 40, :32] for y in range(0, 40, 4)])
    options = {**FEW, "adapt": adapt, "factor": 1, "factor_z": 4, "back_projections": 0}
    found = np.asarray(upscale(Volume(stack, "ZYX"), "mzsr", **options))
    assert found.shape == (40, 40, 32)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kernel", ["1.2247", "auto"])
def test_mzsr_beats_interpolation(kernel: str) -> None:
    sharp = cells(128)
    coarse = blurred(sharp, (1.5, 1.5))
    before = psnr(upscale(coarse, "bicubic"), sharp)
    assert psnr(upscale(coarse, "mzsr", adapt=0, kernel=kernel, precision="float32"), sharp) > before + 1
    adapted = upscale(coarse, "mzsr", **{**FEW, "patch": 48}, kernel=kernel)
    assert psnr(adapted, sharp) > before + 1
