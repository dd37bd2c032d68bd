"""Training over many slices, and the models it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_ssdenoise.reconstruction import ReconstructionModel, ReconstructionTrainer, reconstruct

MakeScan = Callable[..., Any]
SMALL = {"width": 6, "rounds": 2}


@pytest.fixture
def slices(make_scan: MakeScan) -> list[Any]:
    return [make_scan(seed=s, shape=(48, 32), centre=12, others=12, noise=0.01) for s in range(6)]


def stack(slices: list[Any]) -> Any:
    return np.stack([s.measured for s in slices])


def train(slices: list[Any], loss: str = "split", steps: int = 100) -> ReconstructionModel:
    options: dict[str, Any] = {}
    data = stack(slices)
    if loss == "supervised":
        data = np.stack([s.kspace for s in slices])
        options["masks"] = np.stack([np.broadcast_to(s.mask[:, None], s.image.shape) for s in slices])
    trainer = ReconstructionTrainer(data, loss, steps=steps, **options, **SMALL)
    losses = [step.loss for step in trainer]
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    return trainer.model


@pytest.mark.parametrize("loss", ["split", "ssdu", "supervised"])
def test_a_network_learns_to_reconstruct_slices_it_has_not_seen(loss: str, slices: list[Any]) -> None:
    model = train(slices[:-1], loss)
    result = reconstruct(slices[-1].measured, model)
    errors = result.slices[0].errors
    assert result.methods == ("model",)
    untrained = ReconstructionTrainer(stack(slices[:-1]), steps=1, **SMALL).model
    before = reconstruct(slices[-1].measured, untrained)
    assert errors["model"] < before.slices[0].errors["model"]
    truth = np.abs(slices[-1].image)
    after, first = (np.square(np.abs(r.image[0]) - truth).mean() for r in (result, before))
    assert after < first


def test_the_self_supervised_gradient_is_on_average_the_supervised_one(make_scan: MakeScan) -> None:
    scan = make_scan(shape=(48, 16), coils=3, noise=0.0, centre=12, others=0)
    free = np.flatnonzero(~scan.mask)
    rng = np.random.default_rng(0)
    mean: dict[str, float] = {"split": 0.0, "supervised": 0.0}
    acquired = np.isin(np.arange(48), rng.choice(free, 12, replace=False)) | scan.mask
    trainer = ReconstructionTrainer(np.where(acquired[:, None], scan.kspace, 0), steps=1, **SMALL)
    problem = trainer.problems[0]
    full = torch.tensor(scan.kspace) / problem.scale
    for _ in range(200):
        # 12 of the lines outside the centre are acquired, 8 of them given; supervised: 8 given, all others wanted.
        chosen = rng.permutation(free)
        masks = {"split": chosen[:12], "supervised": chosen[:8]}
        for loss, lines in masks.items():
            mask = torch.tensor(scan.mask | np.isin(np.arange(48), lines))[:, None].expand(48, 16)
            trainer.loss = loss
            with torch.no_grad():
                value = trainer._loss(replace(problem, kspace=full, mask=mask))
            # What each is divided by is put back, so that sums of squared errors are compared.
            outside = mask & ~problem.centre
            energy = (full.abs().square() * outside).sum() * float((~mask[:, 0]).sum() / outside.any(1).sum())
            mean[loss] += float(value * energy)
    assert abs(mean["split"] / mean["supervised"] - 1) < 0.05


def test_a_saved_model_reconstructs_the_same(slices: list[Any], tmp_path: Path) -> None:
    trainer = ReconstructionTrainer(stack(slices[:2]), steps=10, **SMALL)
    assert [step.step for step in trainer] == list(range(1, 11))
    model = trainer.model
    path = model.save(tmp_path / "knee.model")
    again = ReconstructionModel.load(path)
    assert again.record == {"loss": "split", "steps": 10, "slices": 2}
    first, second = (reconstruct(slices[0].measured, m).image for m in (model, str(path)))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(FileExistsError, match="exists"):
        model.save(path)
    model.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["knee.model"]


def test_what_is_no_model_is_refused(slices: list[Any], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="no saved model"):
        ReconstructionModel.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no model"):
        ReconstructionModel.load(tmp_path / "none")
    path = ReconstructionTrainer(stack(slices[:1]), steps=1, **SMALL).model.save(tmp_path / "a.model")
    text = json.loads((path / "reconstruction.json").read_text())
    (path / "reconstruction.json").write_text(json.dumps({**text, "version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        ReconstructionModel.load(path)


def test_slices_that_cannot_be_learnt_from_are_refused(slices: list[Any]) -> None:
    data = stack(slices[:1])
    data[:, :, : 48 // 2 - 6] = data[:, :, 48 // 2 + 6 :] = 0
    with pytest.raises(ValueError, match="0 whole lines were acquired outside the centre"):
        ReconstructionTrainer(data)
    with pytest.raises(ValueError, match="masks are needed"):
        ReconstructionTrainer(stack(slices), "supervised")
    with pytest.raises(ValueError, match="unknown loss"):
        ReconstructionTrainer(stack(slices), "other")  # type: ignore[arg-type]
