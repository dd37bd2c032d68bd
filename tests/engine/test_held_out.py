"""Patches that training never touches, and the loss on them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from napari_ssdenoise.algorithms import Noise2Noise, Noise2Void
from napari_ssdenoise.axes import Layout
from napari_ssdenoise.engine.held_out import MOST, SHARE, HeldOut
from napari_ssdenoise.engine.patches import PatchSampler
from napari_ssdenoise.engine.scenes import Scene, View
from napari_ssdenoise.engine.trainer import Trainer
from napari_ssdenoise.io.checkpoint import load_checkpoint, save_checkpoint
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.volume import Volume

TINY: dict[str, Any] = {"width": 4, "depth": 1, "batch": 4, "patch": 8}


def numbered(*shape: int) -> np.ndarray[Any, Any]:
    """Return an image whose every voxel has a value of its own."""
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


def scenes_of(volume: Volume, spatial: str | None = None) -> list[Scene]:
    layout = Layout.choose(volume.axes, volume.shape, spatial)
    return [Scene((View(volume, layout, index),)) for index in layout.indices(volume.shape)]


def sampler(scenes: list[Scene], patch: tuple[int, ...], seed: int = 0, resident: int = 1 << 30) -> PatchSampler:
    return PatchSampler(scenes, Normalization((0.0,), (1.0,)), patch, 16, ("Y", "X", "YX"), seed, resident)


def values(patches: torch.Tensor) -> set[float]:
    return set(patches.flatten().tolist())


@pytest.mark.parametrize("resident", [1 << 30, 0], ids=["resident", "pool"])
@pytest.mark.parametrize(
    ("axes", "shape", "patch"),
    [("YX", (128, 136), (8, 8)), ("TYX", (3, 70, 80), (8, 8)), ("ZYX", (16, 48, 56), (8, 8, 8))],
    ids=["YX", "TYX", "ZYX"],
)
def test_no_training_patch_overlaps_a_held_out_one(
    axes: str, shape: tuple[int, ...], patch: Any, resident: int
) -> None:
    scenes = scenes_of(Volume(numbered(*shape), axes))
    drawing = sampler(scenes, patch, resident=resident)
    held = drawing.held_out()
    assert held is not None
    count = len(held.noisy)
    assert 1 <= count == drawing.held_out_patches <= MOST
    assert count * np.prod(patch) <= SHARE * np.prod(shape)
    kept = values(held.noisy)
    assert len(kept) == held.noisy.numel()  # the held-out patches do not overlap each other
    seen: set[float] = set()
    for step in range(60):
        seen |= values(drawing.draw(step).noisy)
    drawing.close()
    assert not seen & kept
    # Next to them, training does happen.
    assert len(seen) > 0.8 * (np.prod(shape) - len(kept))


def test_the_seed_chooses() -> None:
    scenes = scenes_of(Volume(numbered(4, 80, 80), "TYX"))
    first, again, other = (HeldOut.choose(scenes, (8, 8), seed).places for seed in (0, 0, 1))
    assert first == again != other
    assert len({number for number, _ in first}) == 4  # spread over the scenes


def test_small_images_are_not_cut_into() -> None:
    drawing = sampler(scenes_of(Volume(numbered(64, 32), "YX")), (8, 8))
    assert drawing.held_out() is None
    assert drawing.held_out_patches == 0
    trainer = Trainer(Noise2Void(**TINY), numbered(32, 32), steps=2)
    list(trainer)
    assert trainer.held_out_loss is None
    assert trainer.model.record["held_out"] == []


def test_scenes_of_one_patch_are_never_held_out() -> None:
    """Nothing would be left of them to train on."""
    small = scenes_of(Volume(numbered(100, 8, 8), "TYX"))
    assert HeldOut.choose(small, (8, 8), 0).places == []


def test_frames_that_pairs_share_are_held_out_of_all_pairs() -> None:
    image = Volume(numbered(5, 64, 64), "TYX")
    layout = Layout.choose("TYX", image.shape)
    scenes = Noise2Noise(pairs="frames").scenes([image], [layout], [])
    drawing = sampler(scenes, (8, 8))
    held = drawing.held_out()
    assert held is not None
    kept = values(held.noisy) | values(held.target)
    for step in range(100):
        batch = drawing.draw(step)
        assert not (values(batch.noisy) | values(batch.target)) & kept
    drawing.close()


def test_a_block_without_room_falls_back_to_a_free_corner() -> None:
    held = HeldOut((8, 8), [(0, (3, 3))], {0: [(3, 3)]})
    block = [(0, 19), (0, 14)]
    rng = np.random.default_rng(0)
    assert held.leaves_room(0, block)
    assert {held.draw(0, block, rng)[0] for _ in range(50)} == {11}  # the last row is all that is left
    assert not held.leaves_room(0, [(0, 11), (0, 11)])
    with pytest.raises(RuntimeError, match="no room"):
        held.draw(0, [(0, 11), (0, 11)], rng)


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def trained(steps: int, stop: int | None = None) -> Trainer:
    trainer = Trainer(Noise2Void(**TINY), noise(80, 80), steps=steps, precision="float32")
    for step in trainer:
        if step.step == stop:
            break
    return trainer


def test_the_curve_is_kept_and_ends_with_the_training() -> None:
    trainer = trained(200)
    steps = [step for step, _, _ in trainer.held_out]
    assert 3 <= len(steps) <= 20
    assert steps[-1] == 200
    assert all(b - a >= 8 for a, b in pairwise(steps[:-1]))
    losses = [loss for *_, loss in trainer.held_out]
    assert trainer.held_out_loss == losses[-1]
    assert losses[-1] < losses[0]
    assert losses[-1] > 0.85  # the noise's variance is all that is left, and none of it was learnt by heart
    record = trainer.model.record
    assert [step for step, _, _ in record["held_out"]] == steps
    assert record["held_out"][-1][2] == losses[-1]


def test_looking_does_not_disturb_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_ssdenoise.engine.judge import Judge

    watched = trained(60)
    assert watched.held_out
    monkeypatch.setattr(Judge, "is_due", lambda *_: False)
    unwatched = trained(60)
    assert not unwatched.held_out
    for name, value in unwatched.model.weights().items():
        torch.testing.assert_close(watched.model.weights()[name], value, rtol=0, atol=0)
    assert watched.network.training


def test_resumed_has_the_same_curve(tmp_path: Any) -> None:
    straight, parts = trained(120), trained(120, stop=70)
    assert parts.held_out
    save_checkpoint(tmp_path / "checkpoint", parts)
    resumed = Trainer(Noise2Void(**TINY), noise(80, 80), steps=120, precision="float32")
    state = load_checkpoint(tmp_path / "checkpoint", resumed)
    assert state is not None
    resumed.resume(state)
    list(resumed)
    assert [(step, loss) for step, _, loss in resumed.held_out] == [(step, loss) for step, _, loss in straight.held_out]
