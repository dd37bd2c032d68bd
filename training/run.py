"""A training that takes hours: its averaged weights, its state and its log, kept in files beside its output."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AVERAGING = 0.999  # how much of the averaged weights stays at each step, at most


class Run:
    """One network that learns in one or several stages, each for a given processor time.

    Where the output's ``.state`` is there, the run goes on with it; the log is the output's ``.jsonl``.

    Parameters
    ----------
    network
        To be trained.
    out
        Where its averaged weights go.
    start
        Weights to begin with.
    seed
        Of all draws: each depends on it, the stage and the step alone.
    """

    def __init__(self, network: Any, out: Path, start: Path | None, seed: int) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        if start:
            self.network.load_state_dict(load_file(start))
        self.out = out
        self.seed = seed
        self.averaged = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.learning = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.learning, 1e-4, (0.9, 0.99), fused=True)
        self.stage, self.step, self.used = 0, 0, 0.0
        self._state = out.with_suffix(".state")
        if self._state.exists():
            self._resume()

    def rng(self) -> np.random.Generator:
        """Return what to draw this step's data with."""
        return np.random.default_rng((self.seed, self.stage, self.step))

    def set_rate(self, peak: float, progress: float) -> None:
        """Set the optimizer's step size: up in a hundred steps, then down along a cosine to zero at ``progress`` 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = peak * min(1, (self.step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * min(progress, 1.0)))

    def train(
        self, number: int, stage: Callable[[float], float], minutes: float, evaluate: Callable[[], dict[str, float]]
    ) -> None:
        """Go through a stage, unless that is done: ``stage`` takes a step, is told the progress and returns a loss."""
        if number < self.stage or not minutes:
            return
        if number > self.stage:
            self.stage, self.step, self.used = number, 0, 0.0
        for loss in self._timed(stage, 60 * minutes):
            if self.step % 200 == 0:
                self.log(stage=number, step=self.step, minutes=round(self.used / 60, 2), loss=round(loss, 5))
            if self.step % 2000 == 0 or self.used >= 60 * minutes:
                self.save()
                self.log(stage=number, step=self.step, held=evaluate())

    def log(self, **facts: Any) -> None:
        """Add a line to the log."""
        line = json.dumps({**facts, "date": time.strftime("%FT%T")})
        with self.out.with_suffix(".jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def save(self) -> None:
        """Write the state and the averaged weights."""
        kept = {f"network.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        kept |= {f"averaged.{k}": v.contiguous() for k, v in self.averaged.items()}
        _save(kept, self._state)
        facts = {"stage": self.stage, "step": self.step, "used": self.used}
        self._state.with_suffix(".json").write_text(json.dumps(facts))
        _save({k: v.contiguous() for k, v in self.averaged.items()}, self.out)

    def _resume(self) -> None:
        kept = load_file(self._state)
        facts = json.loads(self._state.with_suffix(".json").read_text())
        self.network.load_state_dict({k[8:]: v for k, v in kept.items() if k.startswith("network.")})
        self.averaged = {k[9:]: v for k, v in kept.items() if k.startswith("averaged.")}
        self.stage, self.step, self.used = facts["stage"], facts["step"], facts["used"]

    def _timed(self, stage: Callable[[float], float], seconds: float) -> Iterator[float]:
        """Take steps until the processor time is used up; a running mean of their losses."""
        mean = 0.0
        while self.used < seconds:
            began = time.process_time()
            loss = stage(self.used / seconds)
            self.step += 1
            mean = loss if self.step == 1 else mean + (loss - mean) * max(0.01, 1 / self.step)
            weight = 1 - min(AVERAGING, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for name, value in self.network.state_dict().items():
                    if value.is_floating_point():
                        self.averaged[name].lerp_(value, weight)
                    else:
                        self.averaged[name].copy_(value)
            self.used += time.process_time() - began
            yield mean


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    os.replace(partial, path)
