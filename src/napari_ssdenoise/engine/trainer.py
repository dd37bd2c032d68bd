"""The training loop: an iterator that the command line, the widget and scripts all step through."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np
import torch

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.axes import Channels, Layout
from napari_ssdenoise.complex_parts import is_parts, real_view
from napari_ssdenoise.engine.annealing import annealing
from napari_ssdenoise.engine.device import (
    Precision,
    autocast,
    choose_device,
    choose_precision,
    free_memory,
    is_out_of_memory,
)
from napari_ssdenoise.engine.judge import Judge
from napari_ssdenoise.engine.memory import reused_memory
from napari_ssdenoise.engine.patches import Batch, PatchSampler, choose_patch
from napari_ssdenoise.engine.record import record_of
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, placed
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.recipe import fingerprint
from napari_ssdenoise.volume import Volume, open_volume, require_intensities

if TYPE_CHECKING:
    from torch import Tensor

    from napari_ssdenoise.algorithms import Algorithm, Conditions
    from napari_ssdenoise.engine.scenes import Scene

CALIBRATION_PIXELS = 1 << 19
SKETCHED_PIXELS = 1 << 13
DEFAULT = "n2v"
CONTINUED = 0.25  # of the usual step size, where a trained model goes on learning


@dataclass(frozen=True)
class TrainStep:
    """What one step of training reports.

    Attributes
    ----------
    step
        Steps done so far.
    steps
        Steps in all, at most; None where only the time counts.
    loss
        Of this step's batch, in units of the normalised variance (for squared losses).
    seconds, remaining
        Time trained, and an estimate of the time left.
    fraction
        Share of the budget that is used, 0 to 1.
    """

    step: int
    steps: int | None
    loss: float
    seconds: float
    remaining: float
    fraction: float


class Trainer(Iterator[TrainStep]):
    """Train an algorithm on noisy images, one step per iteration; leave the loop to stop.

    The learning rate warms up, then falls along a cosine to the end of the budget, and an exponential average of the
    weights is kept: `model` is that average at any time.

    Parameters
    ----------
    algorithm
        An algorithm, or its key; None, with ``start``, for that of the model.
    volumes
        One image or several: volumes, arrays or paths.
    target
        A second view of each image, for algorithms that learn from pairs.
    steps, seconds
        Budget; the first to end ends the training. If neither is given, as many steps as the algorithm usually takes.
    device, precision
        ``"auto"`` takes what the machine is fastest with.
    seed
        Of the initial weights, the patches and the masks. Equal seeds on equal machines give equal models.
    spatial
        Axes to convolve over: ``"YX"``, ``"ZYX"``, or ``"TYX"`` to use neighbouring frames as context.
    channels
        ``"independent"``: every channel is an image by itself; ``"joint"``: the network sees all of them at once;
        ``"auto"``: joint for RGB only. Of complex images, real and imaginary part are channels.
    start
        A trained model whose weights to go on from; the normalisation, and what it had measured of its images' noise,
        are found anew.

    Raises
    ------
    ValueError
        If the images cannot be trained on; the message says why and what to do.
    """

    def __init__(
        self,
        algorithm: str | Algorithm | None,
        volumes: Any,
        *,
        target: Any = None,
        steps: int | None = None,
        seconds: float | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        seed: int = 0,
        spatial: str | None = None,
        channels: Channels = "auto",
        start: TrainedModel | None = None,
    ) -> None:
        if algorithm is None and start is None:
            raise ValueError("name an algorithm, or give a model to go on from with start=.")
        self.algorithm = start.reopened() if algorithm is None and start else get_algorithm(algorithm or "")
        how = {"seconds": seconds, "seed": seed, "spatial": spatial, "channels": channels}
        self.asked = _asked(self.algorithm, **how, device=device, precision=precision)
        self.start = start
        self.volumes = _open_all(volumes)
        self.targets = targets = [] if target is None else _open_all(target)
        if (steps is not None and steps < 1) or (seconds is not None and not 0 < seconds < math.inf):
            raise ValueError(f"steps={steps} and seconds={seconds} must be positive and finite.")
        self.budget_seconds = seconds
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        self.seed = seed
        self.step = 0
        self.seconds = 0.0
        self.history: list[tuple[int, float, float]] = []
        self.held_out: list[tuple[int, float, float]] = []

        if channels == "auto" and any(map(is_parts, self.volumes)):
            channels = "independent"  # twice as many images to learn from; see benchmarks/README.md
        layouts = [Layout.choose(v.axes, v.shape, spatial, channels) for v in self.volumes]
        scenes = self.algorithm.scenes(self.volumes, layouts, targets)
        self.remarks = self.algorithm.remarks(scenes)
        self._views = views = [view for scene in scenes for view in scene.views]
        self.geometry = Geometry.choose(views, channels)
        stride = self.geometry.build(self.algorithm).stride
        self.normalization = Normalization.fit(views, np.random.default_rng([seed, 0]))
        given = asdict(self.algorithm)
        self.algorithm, self.conditions, told = self._fit(scenes)
        self.steps = self.algorithm.usual_steps if steps is None and seconds is None else steps
        self.chosen = [name for name, value in asdict(self.algorithm).items() if value != given[name]]
        side = self.algorithm.patch or self.algorithm.patch_side
        patch = choose_patch(self.geometry.spatial, [v.shape for v in views], stride, side)
        self.sampler = PatchSampler(
            scenes,
            self.normalization,
            patch,
            self.algorithm.batch or self.algorithm.batch_size(patch),
            self.algorithm.symmetries(self.geometry.spatial),
            seed,
            conditions=told,
            spares=self.algorithm.spares,
        )
        if self.steps is None:
            # A budget in seconds may be more than is good.
            seen = self.sampler.batch * math.prod(self.sampler.patch) / sum(scene.voxels for scene in scenes)
            self.steps = self.algorithm.most_steps(seen)
        self.asked["steps"] = self.steps
        self._start_network()

    def _fit(self, scenes: Sequence[Scene]) -> tuple[Algorithm, Conditions, list[Conditions]]:
        """Let the algorithm look at the images: at all together, and at each volume if it tells them apart."""
        views = [view for scene in scenes for view in scene.views]
        algorithm, conditions = self.algorithm.fitted(views, self.normalization, np.random.default_rng([self.seed, 3]))
        if not algorithm.per_image:
            return algorithm, conditions, [conditions] * len(scenes)
        found: dict[int, Conditions] = {}
        for volume in self.volumes:
            own = [view for view in views if view.volume is volume]
            found[id(volume)] = algorithm.fitted(own, self.normalization, np.random.default_rng([self.seed, 3]))[1]
        return algorithm, conditions, [found[id(scene.views[0].volume)] for scene in scenes]

    def _start_network(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self.geometry.build(self.algorithm)
        self.algorithm.begin(network, self._views)
        if self.start:
            _continue(network, self.start)
        self._layout = MEMORY_FORMAT[len(self.geometry.spatial)]
        self.network: Any = placed(network, self.device)
        self._averaged = {name: value.clone() for name, value in self.network.state_dict().items()}
        self._begun = {n: v.clone() for n, v in self._averaged.items()} if self.start or self.algorithm.is_warm else {}
        self._learning = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = self.algorithm.optimizer(self._learning)
        self._state = self.network.state_dict()  # shares the weights' memory
        self._micro_batch = self.sampler.batch
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-patches")
        self._next: tuple[int, Future[Batch]] | None = None
        self._loss = math.nan
        pixels = self.sampler.batch * math.prod(self.sampler.patch)
        self._recent: deque[Batch] = deque(maxlen=max(1, CALIBRATION_PIXELS // pixels))
        self._judge = Judge(self.algorithm, self.geometry, self.sampler, self.device, self.dtype, self.seed)
        self._held, self._holding = ExitStack(), False
        finalize(self, self._held.close)

    @cached_property
    def fingerprints(self) -> list[str]:
        """By which the images can be recognised."""
        return [fingerprint(volume) for volume in self.volumes]

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        by_steps = self.step / self.steps if self.steps else 0.0
        by_time = self.seconds / self.budget_seconds if self.budget_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    @property
    def held_out_loss(self) -> float | None:
        """The averaged weights' latest loss on patches that no training patch overlaps; None if there are none.

        In units of the normalised variance, for squared losses.
        """
        return self.held_out[-1][2] if self.held_out else None

    @property
    def model(self) -> TrainedModel:
        """The model as trained so far, with averaged weights; later steps do not change it."""
        # On the way, a small part of what was spared will do.
        return self._snapshot(list(self._recent)[-(len(self._recent) if self.fraction >= 1 else 4) :])

    def sketch(self) -> TrainedModel:
        """Return the model as trained so far within a moment: adjusted to a few of the spared pixels.

        For previews, and for those who stop a training and wait.
        """
        few: list[Batch] = []
        for last in list(self._recent)[-1:]:
            count = max(1, SKETCHED_PIXELS // math.prod(last.noisy.shape[2:]))
            learnt = None if last.learnt is None else last.learnt[:count]
            few.append(Batch(last.noisy[:count], last.target[:count], learnt, last.progress))
        return self._snapshot(few)

    def _snapshot(self, spared: Sequence[Batch]) -> TrainedModel:
        network = self.geometry.build(self.algorithm)
        network.load_state_dict({name: value.cpu() for name, value in self._averaged.items()})
        self._calibrate(network.eval(), spared)
        return TrainedModel(
            algorithm=self.algorithm,
            network=network,
            geometry=self.geometry,
            normalization=self.normalization,
            record=record_of(self),
            conditions=self.conditions,
        )

    def __next__(self) -> TrainStep:
        if self.fraction >= 1 or self._optimizer is None:  # or there is nothing to learn
            self.close()
            raise StopIteration
        if not self.step and self._begun:
            self._judge_weights()
        started, before = time.perf_counter(), self.fraction
        if not self._holding:
            self._holding = True
            self._held.enter_context(reused_memory())
        batch = self._draw()
        if self.algorithm.spares:
            self._recent.append(batch)
        self.network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        loss = self._backward(batch)
        if self.device.type == "cpu" or self.step % 16 == 0:  # on a GPU, reading the loss waits for it
            self._read_loss(loss)
        self._optimizer.step()
        self._average()
        self.step += 1
        self.seconds += time.perf_counter() - started
        self._look_at_held_out(before)
        if self.fraction >= 1:
            self._read_loss(loss)
        self.history.append((self.step, self.seconds, self._loss))
        return self._report()

    @property
    def moved(self) -> float | None:
        """How far the averaged weights are from those that were begun with, relative; None after a random start."""
        if not self._begun:
            return None
        names = [name for name, _ in self.network.named_parameters()]
        pairs = [(self._averaged[n], self._begun[n].to(self.device)) for n in names]
        way = sum(float((new - old).square().sum()) for new, old in pairs)
        size = sum(float(old.square().sum()) for _, old in pairs)
        return math.sqrt(way / size)

    def close(self) -> None:
        """Stop the reading threads; the model stays available."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self.sampler.close()
        self._held.close()

    def checkpoint(self) -> dict[str, Any]:
        """Return all that `resume` needs: plain values and tensors."""
        optimizer = self._optimizer.state_dict()["state"]
        return {
            "step": self.step,
            "seconds": self.seconds,
            "history": list(self.history),
            "held_out": list(self.held_out),
            "network": {k: v.detach().clone() for k, v in self.network.state_dict().items()},
            "averaged": {k: v.clone() for k, v in self._averaged.items()},
            "optimizer": {f"{i}.{k}": v.clone() for i, state in optimizer.items() for k, v in state.items()},
        }

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint of a trainer with the same algorithm, images and seed.

        Raises
        ------
        ValueError
            If the checkpoint is of another network.
        """
        try:
            self.network.load_state_dict(checkpoint["network"])
        except RuntimeError as error:
            raise ValueError(
                "the checkpoint belongs to a network with other settings. Train from the start."
            ) from error
        self._state = self.network.state_dict()
        self._averaged = {k: v.to(self.device).clone() for k, v in checkpoint["averaged"].items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in checkpoint["optimizer"].items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value.clone()
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        for parameter, moments in self._optimizer.state.items():  # in one order in memory, or fused updates mix them up
            for key, value in moments.items():
                if value.shape == parameter.shape:
                    moments[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        self.step, self.seconds = int(checkpoint["step"]), float(checkpoint["seconds"])
        self.history = [tuple(entry) for entry in checkpoint["history"]]
        self.held_out = [tuple(entry) for entry in checkpoint.get("held_out", ())]
        if self.algorithm.spares:
            for number in range(max(0, self.step - (self._recent.maxlen or 0)), self.step):
                self._recent.append(self._ahead.submit(self.sampler.draw, number).result())

    def _learning_rate(self) -> float:
        algorithm = self.algorithm
        fraction = algorithm.within_stage(self.fraction)[1]
        rate = CONTINUED * algorithm.learning_rate if self.start else algorithm.rate
        return rate * annealing(fraction, self.step, algorithm.steady, algorithm.warm_up)

    def _calibrate(self, network: Any, spared: Sequence[Batch]) -> None:
        """Let the algorithm adjust a network to what was spared."""
        if spared:
            device = torch.device("cpu")
            with torch.no_grad(), autocast(device, choose_precision(device)):
                self.algorithm.calibrate(network, spared)

    def _read_loss(self, loss: Tensor) -> None:
        self._loss = float(loss)
        if not math.isfinite(self._loss):
            raise ArithmeticError(
                f"training diverged at step {self.step}: the loss is {self._loss}. Lower the learning rate "
                f"(now {self.algorithm.learning_rate:g}), or use precision='float32'."
            )

    def _draw(self) -> Batch:
        """Return this step's batch, and have the next one prepared meanwhile."""
        if self._next is None or self._next[0] != self.step:
            self._next = (self.step, self._ahead.submit(self.sampler.draw, self.step))
        batch = self._next[1].result()
        self._next = (self.step + 1, self._ahead.submit(self.sampler.draw, self.step + 1))
        return batch

    def _backward(self, batch: Batch) -> Tensor:
        """Accumulate the gradient of a batch; if the device's memory is too small, of ever smaller parts in turn."""
        while True:
            try:
                return self._accumulate(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._micro_batch == 1:
                    raise
                self._micro_batch = max(1, self._micro_batch // 2)
                free_memory(self.device)

    def _accumulate(self, batch: Batch) -> Tensor:
        for parameter in self._learning:  # as `zero_grad` does, at a tenth of its cost
            parameter.grad = None
        rng = torch.Generator().manual_seed((self.seed << 32) + self.step)
        total = torch.zeros((), device=self.device)
        size = len(batch.noisy)
        for start in range(0, size, self._micro_batch):
            part = slice(start, start + self._micro_batch)
            noisy, target = self._to_device(batch.noisy[part]), self._to_device(batch.target[part])
            learnt = None if batch.learnt is None else batch.learnt[part].to(self.device)
            with autocast(self.device, self.dtype):
                loss = self.algorithm.loss(self.network, Batch(noisy, target, learnt, self.fraction), rng)
            share = loss * (len(noisy) / size)
            share.backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        return total

    def _to_device(self, patches: Tensor) -> Tensor:
        if self.device.type == "cuda":
            patches = patches.pin_memory()
        return patches.to(self.device, non_blocking=True).contiguous(memory_format=self._layout)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights (and batch statistics) towards the current ones."""
        weight = 1 - min(self.algorithm.averaging, (1 + self.step) / (10 + self.step))
        for name, value in self._state.items():
            if value.is_floating_point():
                self._averaged[name].lerp_(value, weight)
            else:
                self._averaged[name].copy_(value)

    def _look_at_held_out(self, before: float) -> None:
        """Now and then, note the loss on what is held out; the time it takes counts as trained."""
        last = self.held_out[-1][0] if self.held_out else 0
        if self._judge.is_due(before, self.fraction, self.step - last):
            self._judge_weights()

    def _judge_weights(self) -> None:
        if not self._judge.can:
            return
        started = time.perf_counter()
        loss = self._judge.loss(self._averaged, self._micro_batch)
        self.seconds += time.perf_counter() - started
        self.held_out.append((self.step, self.seconds, loss))

    def _report(self) -> TrainStep:
        used = self.fraction
        return TrainStep(self.step, self.steps, self._loss, self.seconds, self.seconds * (1 - used) / used, used)


def _continue(network: Any, model: TrainedModel) -> None:
    """Give a new network the weights of a trained one.

    Raises
    ------
    ValueError
        If they are of different size.
    """
    try:
        network.load_state_dict(model.network.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"the model to go on from ({model.algorithm.title}, on {model.geometry.spatial} with "
            f"{model.geometry.n_channels} channel(s)) is of another kind of network. Use its algorithm, its depth and "
            "width, and images with the same axes."
        ) from error


def train(
    volumes: Any,
    algorithm: str | Algorithm | None = None,
    *,
    target: Any = None,
    steps: int | None = None,
    seconds: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    seed: int = 0,
    spatial: str | None = None,
    channels: Channels = "auto",
    start: TrainedModel | None = None,
    **values: Any,
) -> TrainedModel:
    """Train to the end of the budget and return the model; `Trainer` does the same step by step.

    Parameters
    ----------
    volumes, target, steps, seconds, device, precision, seed, spatial, channels, start
        As for `Trainer`.
    algorithm
        As for `Trainer`; ``"n2v"`` by default, or that of the model to go on from.
    **values
        Settings of the algorithm, if it is given by its key.
    """
    if start is None or algorithm or values:
        algorithm = get_algorithm(algorithm or (start.algorithm.key if start else DEFAULT), **values)
    trainer = Trainer(
        algorithm,
        volumes,
        target=target,
        steps=steps,
        seconds=seconds,
        device=device,
        precision=precision,
        seed=seed,
        spatial=spatial,
        channels=channels,
        start=start,
    )
    for _ in trainer:
        pass
    return trainer.model


def _asked(algorithm: Algorithm, **how: Any) -> dict[str, Any]:
    """Say by what a training can be repeated (see `Recipe`): its settings where they are not the usual ones."""
    values = {field.name: (getattr(algorithm, field.name), field.default) for field in fields(algorithm)}
    changed = {name: value for name, (value, usual) in values.items() if value != usual}
    return {"algorithm": algorithm.key, "settings": changed, **how}


def _open_all(volumes: Any) -> list[Volume]:
    several = list(volumes) if isinstance(volumes, (list, tuple)) else [volumes]
    if not several:
        raise ValueError("no images to train on were given.")
    opened = [real_view(open_volume(v)) for v in several]
    for volume in opened:
        require_intensities(volume)
    return opened
