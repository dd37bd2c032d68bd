"""What a saved model says about its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise._repeatable import versions
from napari_ssdenoise.complex_parts import complex_view

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.model import TrainedModel

HISTORY_POINTS = 500


def record_of(trainer: Trainer) -> dict[str, Any]:
    """Return what a saved model says about its training."""
    thin = max(1, len(trainer.history) // HISTORY_POINTS)
    curve = [
        (part[-1][0], round(part[-1][1], 3), float(np.mean([entry[2] for entry in part])))
        for part in (trainer.history[i : i + thin] for i in range(0, len(trainer.history), thin))
    ]
    return {
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 3),
        "seed": trainer.seed,
        "asked": trainer.asked | {"target": bool(trainer.targets)},
        "versions": dict(versions()),
        **({"remarks": list(trainer.remarks)} if trainer.remarks else {}),
        "chosen": trainer.chosen,  # settings that the images decided
        **({} if trainer.moved is None else {"moved": round(trainer.moved, 4)}),
        **({"continues": _summary(trainer.start)} if trainer.start else {}),
        "device": str(trainer.device),
        "precision": str(trainer.dtype).removeprefix("torch."),
        "patch": list(trainer.sampler.patch),
        "batch": trainer.sampler.batch,
        "loss": curve,
        "held_out": [(step, round(seconds, 3), loss) for step, seconds, loss in trainer.held_out],
        "data": [
            {
                "name": v.name,
                "axes": v.axes,
                "shape": list(v.shape),
                "dtype": str(v.dtype),
                "scale": list(v.scale),
                "units": list(v.units),
                "fingerprint": found,
            }
            for v, found in zip(map(complex_view, trainer.volumes), trainer.fingerprints, strict=True)
        ],
    }


def _summary(model: TrainedModel) -> dict[str, Any]:
    """Say what a model was, for the record of one that goes on from it."""
    record = model.record
    earlier = {"continues": record["continues"]} if "continues" in record else {}
    return {"algorithm": model.algorithm.key, **{k: record.get(k) for k in ("steps", "seconds", "data")}, **earlier}
