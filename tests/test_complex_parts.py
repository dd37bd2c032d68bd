"""Complex images are learnt from and denoised as real and imaginary parts, and come back complex."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import napari_ssdenoise as ssd
from napari_ssdenoise.complex_parts import complex_view, is_parts, joined, real_view
from napari_ssdenoise.io import read_volume
from napari_ssdenoise.recipe import Recipe
from napari_ssdenoise.volume import Volume

SIGMA = 0.2


def phased(shape: tuple[int, ...] = (64, 64)) -> Any:
    """Return a smooth object with a phase that turns over it."""
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    y, x = grids[-2:]
    return (1 + np.sin(x / 6) * np.cos(y / 7)) * np.exp(1j * (x + y) / 25)


def noisy(clean: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (clean + SIGMA * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))).astype(np.complex64)


@pytest.mark.parametrize("dtype", ["complex64", ">c8", "complex128"])
def test_parts_are_a_lazy_real_view(dtype: str) -> None:
    image = noisy(phased((5, 8, 9))).astype(dtype)
    volume = real_view(Volume(image, "ZYX", scale=(3, 2, 1)))
    assert is_parts(volume)
    assert (volume.axes, volume.shape, volume.scale) == ("ZYXS", (5, 8, 9, 2), (3, 2, 1, 1))
    assert volume.dtype == np.dtype(f"f{image.dtype.itemsize // 2}")
    whole = np.stack([image.real, image.imag], -1)
    for key in [..., 2, (slice(1, 3), 4), (..., 1), (0, slice(2, 5), slice(None), 0), (0, ..., slice(1, 2))]:
        np.testing.assert_array_equal(volume[key], whole[key])
        assert volume[key].dtype.isnative
    np.testing.assert_array_equal(complex_view(volume)[...], image)
    np.testing.assert_array_equal(joined("mean", volume[...]), image)
    assert real_view(volume) is volume


def test_an_axis_of_samples_cannot_be_complex() -> None:
    with pytest.raises(ValueError, match="Name that axis C"):
        real_view(Volume(np.zeros((8, 8, 3), complex), "YXS"))


def test_both_parts_are_normalised_alike_and_keep_their_zero() -> None:
    image = noisy(phased() + 5)
    for channels, count in (("independent", 1), ("joint", 2)):
        norm = ssd.Trainer("n2v", image, steps=1, channels=channels).normalization
        assert norm.mean == (0.0,) * count
        np.testing.assert_allclose(norm.std, np.sqrt((np.abs(image) ** 2).mean() / 2), rtol=1e-4)


@pytest.mark.parametrize("channels", ["auto", "joint"])
def test_a_complex_image_is_denoised_and_comes_back_complex(channels: Any) -> None:
    clean = phased()
    image = noisy(clean)
    model = ssd.train(image, "zs-n2n", steps=150, channels=channels, precision="float32")
    made = model.predict(image, precision="float32")
    assert (made.shape, made.dtype) == (image.shape, np.complex64)
    assert np.mean(np.abs(made - clean) ** 2) < 0.4 * np.mean(np.abs(image - clean) ** 2)
    # The background of the magnitude is not lifted, as a denoised magnitude would be.
    assert abs(np.abs(made).mean() - np.abs(clean).mean()) < 0.3 * abs(np.abs(image).mean() - np.abs(clean).mean())
    part = model.predict_part(image, (slice(8, 24), slice(0, 20)))
    np.testing.assert_allclose(part, made[8:24, :20], atol=1e-2)


def test_every_output_of_a_complex_series_and_both_ways_to_predict_agree(tmp_path: Path) -> None:
    image = np.stack([noisy(phased(), seed) for seed in range(3)])
    volume = Volume(image, "TYX")
    model = ssd.train(volume, "blindspot", noise="gaussian", steps=2, precision="float32")
    mean, std = model.predict(volume, outputs=("mean", "std"), precision="float32")
    assert (mean.dtype, std.dtype, std.shape) == (np.complex64, np.float32, image.shape)
    assert (std > 0).all()
    model.save(tmp_path / "m.model")
    again = ssd.TrainedModel.load(tmp_path / "m.model")
    also = {"std": tmp_path / "std.npy"}
    done = list(again.predict_into(volume, tmp_path / "mean.npy", also=also, tile=(32, 32), precision="float32"))
    assert len(done[0].region or ()) == 3
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "std.npy"), std, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels", ["auto", "joint"])
def test_a_stopped_run_goes_on_and_what_is_in_view_comes_first(tmp_path: Path, channels: Any) -> None:
    volume = Volume(np.stack([noisy(phased((96, 96)), seed) for seed in range(10)]), "TYX")
    model = ssd.train(volume, "n2v", steps=1, precision="float32", channels=channels)
    how: dict[str, Any] = {"memory": "70 MB", "precision": "float32"}
    expected = model.predict(volume, precision="float32")
    run = model.predict_into(volume, tmp_path / "a.npy", view=lambda: (slice(9, 10), slice(0, 96), slice(0, 96)), **how)
    first = next(run)
    assert first.early
    assert first.region is not None
    assert first.region[0] == slice(9, 10)
    while first.early:
        first = next(run)
    shown = np.load(first.path, mmap_mode="r")[9]
    np.testing.assert_allclose(shown, expected[9], rtol=1e-4, atol=1e-4)
    run.close()
    done = list(model.predict_into(volume, tmp_path / "a.npy", **how))
    assert 1 < done[0].done < done[-1].total  # not from the beginning
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, rtol=1e-4, atol=1e-4)


def test_a_deep_stack_flows_and_the_recipe_of_a_file_is_found(tmp_path: Path) -> None:
    image = noisy(phased((40, 32, 32)))
    np.save(tmp_path / "a.npy", image)
    volume = ssd.open_volume(tmp_path / "a.npy", axes="ZYX")
    model = ssd.train(volume, "n2v", steps=1, spatial="ZYX", precision="float32")
    plan = model.plan(volume, memory="100 MB", precision="float32")
    assert plan.batch == 2
    list(model.predict_into(volume, tmp_path / "b.npy", memory="100 MB", precision="float32"))
    np.testing.assert_allclose(
        np.load(tmp_path / "b.npy"), model.predict(volume, precision="float32"), rtol=1e-4, atol=1e-4
    )
    recipe = Recipe.of(model, volume, volume.source)
    assert recipe.training["algorithm"] == "n2v"
    exec(recipe.python(tmp_path / "c.npy"), {})
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), model.predict(volume), rtol=1e-4, atol=1e-4)


def test_a_complex_nifti_keeps_its_header(tmp_path: Path) -> None:
    affine = np.array([[-1.9, 0.1, 0.3, 90], [0.2, 2.1, -0.4, -120], [0.1, 0.5, 2.9, -70], [0, 0, 0, 1.0]])
    image = np.stack([noisy(phased((40, 40)), seed) for seed in range(2)], -1)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "a.nii")
    model = ssd.train(tmp_path / "a.nii", "n2v", steps=1, spatial="YX")
    list(model.predict_into(tmp_path / "a.nii", tmp_path / "b.nii.gz"))
    made = nib.load(tmp_path / "b.nii.gz")
    assert made.get_data_dtype() == np.complex64
    np.testing.assert_allclose(made.affine, affine, atol=1e-5)
    np.testing.assert_allclose(
        np.asarray(made.dataobj), model.predict(read_volume(tmp_path / "a.nii")).T, rtol=2e-2, atol=2e-2
    )


def test_repeats_of_a_complex_series_are_pairs() -> None:
    clean = phased((96, 96))
    series = Volume(np.stack([noisy(clean, seed) for seed in range(4)]), "TYX")
    report = ssd.diagnose(series)
    assert (report.noise, report.algorithm, report.settings["pairs"], report.axes) == (
        "gaussian",
        "n2n",
        "frames",
        "TYX",
    )
    assert float(report.sigma) == pytest.approx(SIGMA, rel=0.08)
    small = replace(report.recommendation, width=8, depth=1, batch=2)
    trainer = ssd.Trainer(small, series, steps=300)
    for _ in trainer:
        pass
    made = trainer.model.predict(series)
    assert np.mean(np.abs(made - clean) ** 2) < 0.5 * np.mean(np.abs(series[...] - clean) ** 2)


@pytest.mark.parametrize("channels", ["auto", "joint"])
def test_repeats_may_differ_in_phase(channels: Any) -> None:
    clean = phased((96, 96))
    y, x = np.mgrid[:96, :96]
    turns = np.random.default_rng(1).uniform(-2, 2, (6, 3, 1, 1))
    phases = np.exp(1j * (turns[:, 0] + turns[:, 1] * y / 96 + turns[:, 2] * x / 96))
    repeats = phases * clean
    assert np.abs(repeats.mean(0)).mean() < 0.7 * np.abs(clean).mean()  # what would be learnt otherwise
    series = Volume(np.stack([noisy(image, seed) for seed, image in enumerate(repeats)]), "TYX")
    small: dict[str, Any] = {"width": 8, "depth": 1, "batch": 2}
    model = ssd.train(series, "n2n", pairs="frames", frame_distance=5, steps=300, channels=channels, **small)
    made = model.predict(series)
    assert np.mean(np.abs(made - repeats) ** 2) < 0.65 * np.mean(np.abs(series[...] - repeats) ** 2)
    np.testing.assert_allclose(np.abs(made).mean(), np.abs(clean).mean(), rtol=0.15)


def test_coils_have_noise_of_their_own() -> None:
    clean = phased((96, 96))
    coils = Volume(np.stack([noisy(clean), clean + 3 * (noisy(clean) - clean)]), "CYX")
    for channels in ("auto", "joint"):
        trainer = ssd.Trainer("blindspot", coils, steps=1, channels=channels)
        assert len(trainer.normalization.std) == (2 if channels == "auto" else 4)
        next(trainer)
        assert trainer.model.predict(coils).shape == coils.shape


def test_a_model_of_real_images_takes_no_complex_ones() -> None:
    image = noisy(phased())
    real, both = (ssd.train(data, "n2v", steps=1) for data in (np.abs(image), image))
    with pytest.raises(ValueError, match="is complex, but the model was trained on real images"):
        real.predict(image)
    with pytest.raises(ValueError, match="is real, but the model was trained on complex"):
        both.predict(np.abs(image))


@pytest.mark.parametrize("name", ["a.npy", "a.nii", "a.nii.gz", "a.zarr", "a.ome.zarr", "a.tif", "a.ome.tif"])
def test_formats_hold_complex_numbers(name: str, tmp_path: Path) -> None:
    volume = Volume(np.stack([noisy(phased((70, 50)), seed) for seed in range(3)]), "ZYX", scale=(3, 2, 2))
    model = ssd.train(volume, "n2v", steps=1, precision="float32", spatial="YX")
    list(model.predict_into(volume, tmp_path / name, precision="float32"))
    made = ssd.open_volume(tmp_path / name, axes="ZYX")
    assert made.dtype == np.complex64
    np.testing.assert_allclose(made[...], model.predict(volume, precision="float32"), rtol=1e-4, atol=1e-4)


def test_formats_and_dtypes_that_hold_no_complex_numbers_are_refused(tmp_path: Path) -> None:
    image = noisy(phased())
    model = ssd.train(image, "n2v", steps=1)
    with pytest.raises(ValueError, match="complex64"):
        list(model.predict_into(image, tmp_path / "a.png"))
    with pytest.raises(ValueError, match="parts of a complex image cannot be uint16"):
        list(model.predict_into(image, tmp_path / "a.npy", dtype="uint16"))
    assert not list(tmp_path.iterdir())


def test_quality_and_metrics_take_complex_images() -> None:
    clean = phased((96, 96)).astype(np.complex64)
    image = noisy(clean)
    model = ssd.train(image, "zs-n2n", steps=60)
    assert ssd.psnr(model.predict(image), clean) > ssd.psnr(image, clean)
    assert ssd.assess(model, image, denoised=model.predict(image)).to_json()
