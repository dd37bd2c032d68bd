"""Training: seeded, resumable, from any kind of array, and better than the noise."""

from __future__ import annotations

import math
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_ssdenoise.algorithms import BlindSpot, Noise2Noise, Noise2Void
from napari_ssdenoise.engine import material
from napari_ssdenoise.engine.annealing import annealing
from napari_ssdenoise.engine.patches import Batch, PatchSampler, block_shape, choose_patch
from napari_ssdenoise.engine.trainer import Trainer, train
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {"width": 4, "batch": 2, "patch": 16}


def tiny(**settings: Any) -> Noise2Void:
    return Noise2Void(**{**TINY, **settings})


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return trainer.model.weights()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


def test_denoises(clean_image: np.ndarray[Any, Any], noisy_image: np.ndarray[Any, Any]) -> None:
    model = train(noisy_image, "n2v", steps=150, precision="float32", width=8, batch=8, patch=32)
    result = model.predict(noisy_image)
    noisy_error = np.mean((noisy_image - clean_image) ** 2)
    assert np.mean((result - clean_image) ** 2) < noisy_error / 4


def test_pure_noise_becomes_flat_not_smaller_noise() -> None:
    """The loss cannot fall below the noise's variance: a hidden pixel's noise is unpredictable."""
    trainer = Trainer(tiny(masked_percent=2.0), noise(64, 64), steps=120, precision="float32")
    losses = [step.loss for step in trainer]
    assert np.mean(losses[-40:]) > 0.85


def test_equal_seeds_give_equal_models() -> None:
    first, second, other = (Trainer(tiny(), noise(40, 40), steps=5, seed=s) for s in (1, 1, 2))
    for trainer in (first, second, other):
        for _ in trainer:
            pass
    assert_same(weights(first), weights(second))
    assert not torch.equal(weights(first)["head.weight"], weights(other)["head.weight"])


@pytest.mark.parametrize("resident_bytes", [1 << 30, 0], ids=["resident", "pool"])
def test_resumed_equals_uninterrupted(resident_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "PatchSampler", lambda *args, **rest: PatchSampler(*args, resident_bytes, **rest))
    image = noise(80, 70)
    straight = Trainer(tiny(), image, steps=12)
    for _ in straight:
        pass
    first = Trainer(tiny(), image, steps=12)
    for step in first:
        if step.step == 5:
            break
    saved = first.checkpoint()
    next(first)  # a checkpoint does not change with what comes after it
    second = Trainer(tiny(), image, steps=12)
    second.resume(saved)
    assert [step.step for step in second] == list(range(6, 13))
    assert_same(weights(straight), weights(second))
    assert len(second.history) == 12


def test_resumed_from_a_file_equals_uninterrupted(tmp_path: Path) -> None:
    """Files do not keep the order in memory of the optimizer's moments, which must be that of the weights."""
    from napari_ssdenoise.io.checkpoint import load_checkpoint, save_checkpoint

    straight, first, second = (Trainer(tiny(), noise(40, 40), steps=8, precision="float32") for _ in range(3))
    list(straight)
    for _ in range(4):
        next(first)
    save_checkpoint(tmp_path / "c", first)
    state = load_checkpoint(tmp_path / "c", second)
    assert state is not None
    second.resume(state)
    list(second)
    assert_same(weights(straight), weights(second))


@pytest.mark.parametrize(("patches", "patch", "part"), [(8, (16, 16), (4, 16, 16)), (2, (9, 80, 64), (1, 9, 10, 8))])
def test_a_sketch_is_calibrated_on_a_small_part(
    patches: int, patch: tuple[int, ...], part: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stops a training waits for it."""
    seen: list[Batch] = []
    monkeypatch.setattr(BlindSpot, "calibrate", lambda self, network, batches: seen.extend(batches))
    monkeypatch.setattr("napari_ssdenoise.engine.trainer.SKETCHED_PIXELS", 1024)
    trainer = Trainer(BlindSpot(depth=1, width=4, noise="gaussian"), noise(64, 64), steps=1)
    noisy = torch.zeros(patches, 5, *patch)
    trainer._recent.append(Batch(noisy, noisy[:, :1], torch.ones(patches, *patch)))
    trainer.sketch()
    assert [(batch.noisy.shape, batch.target.shape, batch.learnt.shape) for batch in seen] == [
        ((part[0], 5, *part[1:]), (part[0], 1, *part[1:]), part)
    ]


def test_where_there_is_nothing_to_learn_training_ends_at_once() -> None:
    trainer = Trainer("interpolation", noise(40, 40), steps=8, spatial="YX")
    assert list(trainer) == []
    assert trainer.model.predict(noise(40, 40)).shape == (80, 80)


def test_checkpoint_of_another_network_is_refused() -> None:
    first, second = Trainer(tiny(), noise(40, 40), steps=2), Trainer(tiny(width=8), noise(40, 40), steps=2)
    with pytest.raises(ValueError, match="other settings"):
        second.resume(first.checkpoint())


@pytest.mark.parametrize("kind", ["zarr", "dask"])
def test_arrays_train_alike(kind: str, tmp_path: Path) -> None:
    image = noise(48, 52)
    if kind == "zarr":
        import zarr

        wrapped: Any = zarr.create_array(tmp_path / "a.zarr", shape=image.shape, chunks=(16, 16), dtype=image.dtype)
        wrapped[:] = image
    else:
        wrapped = pytest.importorskip("dask.array").from_array(image, chunks=20)
    plain, lazy = Trainer(tiny(), image, steps=3), Trainer(tiny(), wrapped, steps=3)
    for trainer in (plain, lazy):
        for _ in trainer:
            pass
    assert_same(weights(plain), weights(lazy))


class Counting:
    """An array that counts how often its chunks are read."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype(np.uint16)
        self.voxels = 0

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        sizes = [len(range(*k.indices(n))) for k, n in zip(key, self.shape, strict=True)]
        self.voxels += math.prod(sizes)
        start = key[0].start or 0
        return np.random.default_rng(start).poisson(50, sizes).astype(np.uint16)


def test_a_huge_volume_is_sampled_not_loaded() -> None:
    array = Counting((4000, 4096, 4096), (16, 256, 256))  # 134 GB
    trainer = Trainer(tiny(), Volume(array, "ZYX"), steps=3)
    for _ in trainer:
        pass
    assert not trainer.sampler.resident
    assert array.voxels < 60_000_000


def test_pool_blocks_are_whole_chunks_around_the_patch() -> None:
    size = block_shape((400, 4096, 4096), (16, 256, 256), (16, 64, 64), 4)
    assert all(s % c == 0 for s, c in zip(size, (16, 256, 256), strict=True))
    assert all(s >= 2 * p for s, p in zip(size, (16, 64, 64), strict=True))
    assert block_shape((40, 50), (40, 50), (16, 16), 4) == (40, 50)


def test_a_large_array_without_chunks_is_read_in_parts() -> None:
    shape = (400, 4096, 4096)
    size = block_shape(shape, shape, (16, 64, 64), 4)
    assert math.prod(size) * 4 <= 16 << 20
    assert all(s >= 2 * p for s, p in zip(size, (16, 64, 64), strict=True))


def test_rgb_in_several_channels_keeps_each_colours_own_scale() -> None:
    image = np.stack([np.stack([noise(32, 32) * 10.0**k for k in (0, 1, 2)], -1), np.stack([noise(32, 32)] * 3, -1)])
    trainer = Trainer(tiny(), Volume(image, "CYXS"), steps=1)
    for scene in trainer.sampler.scenes:
        patch = scene.read((slice(None), slice(None)), trainer.normalization)
        np.testing.assert_allclose(patch.std((0, 2, 3)), 1, rtol=1e-3)


def test_every_voxel_is_drawn_and_symmetries_are_used() -> None:
    image = np.arange(24 * 20, dtype=np.float32).reshape(24, 20)
    trainer = Trainer(tiny(batch=64), image, steps=1)
    seen, ascending = set(), set()
    for step in range(20):
        patches = trainer.sampler.draw(step).noisy.double()[:, 0]
        values = (patches * trainer.normalization.std[0] + trainer.normalization.mean[0]).round()
        seen |= set(values.flatten().int().tolist())
        for patch in values:
            ascending.add((float(patch[0, 1] - patch[0, 0]), float(patch[1, 0] - patch[0, 0])))
    assert seen == set(range(480))
    assert ascending == {(x, y) for a in (-1.0, 1.0) for b in (-20.0, 20.0) for x, y in ((a, b), (b, a))}


def test_several_images_of_different_sizes() -> None:
    trainer = Trainer(tiny(), [noise(40, 50), noise(33, 70)], steps=2)
    assert [s.step for s in trainer] == [1, 2]
    assert len(trainer.model.record["data"]) == 2


@pytest.mark.parametrize(
    ("axes", "shape", "options", "geometry"),
    [
        ("TYX", (20, 32, 32), {"spatial": "TYX"}, ("TYX", 1)),
        ("TYX", (20, 32, 32), {}, ("YX", 1)),
        ("CYX", (2, 32, 32), {}, ("YX", 1)),
        ("CYX", (2, 32, 32), {"channels": "joint"}, ("YX", 2)),
        ("YXS", (32, 32, 3), {}, ("YX", 3)),
        ("YXS", (32, 32, 3), {"channels": "independent"}, ("YX", 1)),
        ("ZYX", (20, 32, 32), {}, ("ZYX", 1)),
        ("ZYX", (4, 32, 32), {}, ("YX", 1)),
        ("TZCYX", (2, 9, 2, 32, 32), {"channels": "joint"}, ("ZYX", 2)),
    ],
    ids=str,
)
def test_geometries(axes: str, shape: tuple[int, ...], options: dict[str, Any], geometry: tuple[str, int]) -> None:
    volume = Volume(noise(*shape), axes)
    model = train(volume, tiny(), steps=2, **options)
    assert (model.geometry.spatial, model.geometry.n_channels) == geometry
    result = model.predict(volume)
    assert result.shape == shape
    assert np.isfinite(result).all()


@pytest.mark.parametrize("axis", ["C", "S"])
def test_channels_have_their_own_normalisation(axis: str) -> None:
    image = np.stack([noise(32, 32), 1000 + 50 * noise(32, 32, seed=1), noise(32, 32, seed=2)])
    volume = Volume(image if axis == "C" else image.transpose(1, 2, 0), "CYX" if axis == "C" else "YXS")
    model = train(volume, tiny(), steps=2, channels="independent")
    assert model.normalization.mean[1] > 10 * model.normalization.mean[0]
    medians = np.median(model.predict(volume), axis=(1, 2) if axis == "C" else (0, 1))
    np.testing.assert_allclose(medians, np.median(image, axis=(1, 2)), rtol=0.5)


def test_budget_in_seconds_and_report() -> None:
    trainer = Trainer(tiny(), noise(40, 40), seconds=0.3)
    steps = list(trainer)
    assert steps[-1].fraction == 1
    assert steps[-1].remaining == 0
    assert steps[-1].steps is None
    assert all(a.fraction <= b.fraction for a, b in pairwise(steps))


def test_rate_warms_up_then_anneals_to_zero() -> None:
    assert annealing(0.0, 0) < annealing(0.01, 19)
    assert annealing(0.5, 1000) == pytest.approx(0.5)
    assert annealing(1.0, 1000) == pytest.approx(0)


def test_training_memory_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny(batch=8), noise(40, 40), steps=2, precision="float32")
    loss, sizes = Noise2Void.loss, []

    def poor(self: Noise2Void, network: Any, batch: Any, rng: torch.Generator) -> torch.Tensor:
        sizes.append(len(batch.noisy))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return loss(self, network, batch, rng)

    monkeypatch.setattr(Noise2Void, "loss", poor)
    assert len(list(trainer)) == 2
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_a_step_that_is_cut_short_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(40, 40)
    trainer, undisturbed = (Trainer(tiny(), image, steps=4, precision="float32") for _ in range(2))
    list(islice(trainer, 2))
    loss = Noise2Void.loss

    def cut_short(*args: Any) -> torch.Tensor:
        loss(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Noise2Void, "loss", cut_short)
        with pytest.raises(KeyboardInterrupt):
            next(trainer)
    assert trainer.step == 2
    assert [len(list(t)) for t in (trainer, undisturbed)] == [2, 4]
    for name, value in undisturbed.model.weights().items():
        np.testing.assert_array_equal(trainer.model.weights()[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 32), np.float32), "empty"),
        (np.ones((32, 32), np.float32), "same value"),
        (np.ones((32, 32), bool), "boolean"),
        (np.full((32, 32), np.nan, np.float32), "NaN"),
        (np.where(np.eye(32) > 0, np.inf, noise(32, 32)), "infinite"),
        (1e300 * noise(32, 32).astype(np.float64), "huge"),
        (noise(1, 64), "only 1 pixels along Y"),
        (noise(64, 3), "only 3 pixels along X"),
        (noise(64), "two dimensions"),
        (np.full((32, 32), "a"), "not numeric"),
    ],
    ids=["empty", "constant", "bool", "nan", "inf", "huge", "thin", "narrow", "line", "text"],
)
def test_bad_images_are_refused_in_plain_words(image: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(tiny(), image, steps=1)


def test_negative_and_large_offsets_are_fine() -> None:
    image = noise(40, 40).astype(np.float64)
    for shifted in (image - 1e4, image + 1e9):
        model = train(shifted, tiny(), steps=2, precision="float32")
        assert np.isfinite(model.predict(shifted)).all()
        assert model.normalization.std[0] == pytest.approx(image.std(), rel=1e-3)


def test_bad_arguments() -> None:
    image = noise(32, 32)
    with pytest.raises(ValueError, match="positive"):
        Trainer(tiny(), image, steps=0)
    with pytest.raises(ValueError, match="finite"):
        Trainer(tiny(), image, seconds=math.inf)
    with pytest.raises(ValueError, match="unknown algorithm"):
        Trainer("n3v", image)
    with pytest.raises(ValueError, match="not available"):
        Trainer(tiny(), image, device="cuda:77")
    with pytest.raises(ValueError, match="spatial axes 'X'"):
        Trainer(tiny(), image, spatial="X")
    with pytest.raises(ValueError, match="takes no target"):
        Trainer(tiny(), image, target=image)
    with pytest.raises(ValueError, match="no images"):
        Trainer(tiny(), [])
    with pytest.raises(ValueError, match="differ in spatial axes or channels"):
        Trainer(tiny(), [image, noise(20, 32, 32)])


def test_divergence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny(), noise(32, 32), steps=2)
    monkeypatch.setattr(Noise2Void, "loss", lambda self, network, *_: next(network.parameters()).sum() * math.nan)
    with pytest.raises(ArithmeticError, match="learning rate"):
        next(trainer)


def test_patch_choice() -> None:
    assert choose_patch("YX", [(512, 512)], (4, 4)) == (64, 64)
    assert choose_patch("YX", [(512, 50)], (4, 4)) == (64, 48)
    assert choose_patch("ZYX", [(10, 512, 512)], (1, 4, 4)) == (10, 64, 64)
    assert choose_patch("YX", [(512, 512)], (4, 4), 98) == (96, 96)
    assert choose_patch("ZYX", [(64, 512, 512)], (32, 32, 32)) == (32, 64, 64)
    assert choose_patch("YX", [(512, 512)], (4, 4), 2) == (4, 4)


@pytest.mark.parametrize("pairs", ["target", "frames", "channels"])
def test_noise2noise_learns_from_pairs(pairs: str, clean_image: np.ndarray[Any, Any]) -> None:
    rng = np.random.default_rng(3)
    views = [clean_image + rng.normal(0, 0.2, clean_image.shape).astype(np.float32) for _ in range(2)]
    axes = {"frames": "TYX", "channels": "CYX"}.get(pairs)
    source = Volume(np.stack(views), axes) if axes else views[0]
    model = train(
        source,
        Noise2Noise(pairs=pairs, width=8, batch=8, patch=32),
        target=None if axes else views[1],
        steps=150,
        precision="float32",
    )
    assert np.mean((model.predict(views[0]) - clean_image) ** 2) < 0.2**2 / 4
