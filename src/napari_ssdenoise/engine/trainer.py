"""The training loop: an iterator that the command line, the widget and scripts all step through."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import finalize

import torch

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.complex_parts import real_view
from napari_ssdenoise.engine.annealing import annealing
from napari_ssdenoise.engine.device import Precision, autocast, choose_device, choose_precision
from napari_ssdenoise.engine.judge import Judge
from napari_ssdenoise.engine.learner import Learner
from napari_ssdenoise.engine.material import Material
from napari_ssdenoise.engine.memory import reused_memory
from napari_ssdenoise.engine.record import record_of
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.recipe import fingerprint
from napari_ssdenoise.volume import Volume, open_volume, require_intensities

if TYPE_CHECKING:
    from torch import Tensor

    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.axes import Channels
    from napari_ssdenoise.engine.patches import Batch

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
        ``"auto"``: joint for RGB only, and not in `blindspot`. Of complex images, real and imaginary part are channels.
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
        self.targets = [] if target is None else _open_all(target)
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

        if start and channels == "auto":
            channels = "joint" if start.geometry.n_channels > 1 else "independent"
        material = Material.of(
            self.algorithm, self.volumes, self.targets, spatial=spatial, channels=channels, seed=seed
        )
        self.algorithm, self.chosen, self.conditions = material.algorithm, material.chosen, material.conditions
        self.geometry, self.normalization = material.geometry, material.normalization
        self.remarks = (*self.algorithm.remarks(material.scenes), *self.normalization.remarks)
        self.sampler = material.sampler(seed)
        pixels = self.sampler.batch * math.prod(self.sampler.patch)
        self.asked["steps"] = self.steps = self._most_steps(steps, pixels / material.voxels)
        self._learner = self._begin(material)
        self._judge = Judge(self.algorithm, self.geometry, self.sampler, self.device, self.dtype, seed)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-patches")
        self._next: tuple[int, Future[Batch]] | None = None
        self._loss = math.nan
        self._recent: deque[Batch] = deque(maxlen=max(1, CALIBRATION_PIXELS // pixels))
        self._held, self._holding = ExitStack(), False
        finalize(self, self._held.close)

    def _most_steps(self, steps: int | None, epochs: float) -> int | None:
        """Return after how many steps to end at the latest; a step sees each pixel ``epochs`` times."""
        if steps is None and self.budget_seconds is None:
            return self.algorithm.usual_steps
        # A budget in seconds may be more than is good.
        return self.algorithm.most_steps(epochs) if steps is None else steps

    def _begin(self, material: Material) -> Learner:
        """Make the network, with the weights that it begins with."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self.geometry.build(self.algorithm)
        self.algorithm.begin(network, material.views)
        if self.start:
            _continue(network, self.start)
        return Learner(
            self.algorithm,
            network,
            ndim=len(self.geometry.spatial),
            device=self.device,
            dtype=self.dtype,
            at_once=self.sampler.batch,
            warm=self.start is not None or self.algorithm.is_warm,
        )

    @property
    def network(self) -> Any:
        """The network with its current weights, on the device."""
        return self._learner.network

    @property
    def moved(self) -> float | None:
        """How far the averaged weights are from those that were begun with, relative; None after a random start."""
        return self._learner.moved

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
        return self._snapshot([last.part(SKETCHED_PIXELS) for last in list(self._recent)[-1:]])

    def _snapshot(self, spared: Sequence[Batch]) -> TrainedModel:
        network = self.geometry.build(self.algorithm)
        network.load_state_dict({name: value.cpu() for name, value in self._learner.averaged.items()})
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
        if self.fraction >= 1 or not self._learner.learns:
            self.close()
            raise StopIteration
        if not self.step and self._learner.warm:
            self._judge_weights()
        started, before = time.perf_counter(), self.fraction
        if not self._holding:
            self._holding = True
            self._held.enter_context(reused_memory())
        batch = self._draw()
        if self.algorithm.spares:
            self._recent.append(batch)
        rate = self._learning_rate()
        loss = self._learner.gradient(replace(batch, progress=self.fraction), (self.seed << 32) + self.step)
        if self.device.type == "cpu" or self.step % 16 == 0:  # on a GPU, reading the loss waits for it
            self._read_loss(loss)
        self._learner.move(rate, self.step)
        self.step += 1
        self.seconds += time.perf_counter() - started
        self._look_at_held_out(before)
        if self.fraction >= 1:
            self._read_loss(loss)
        self.history.append((self.step, self.seconds, self._loss))
        return self._report()

    def close(self) -> None:
        """Stop the reading threads; the model stays available."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self.sampler.close()
        self._held.close()

    def checkpoint(self) -> dict[str, Any]:
        """Return all that `resume` needs: plain values and tensors."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "history": list(self.history),
            "held_out": list(self.held_out),
            **self._learner.checkpoint(),
        }

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint of a trainer with the same algorithm, images and seed.

        Raises
        ------
        ValueError
            If the checkpoint is of another network.
        """
        self._learner.resume(checkpoint)
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

    def _look_at_held_out(self, before: float) -> None:
        """Now and then, note the loss on what is held out; the time it takes counts as trained."""
        last = self.held_out[-1][0] if self.held_out else 0
        if self._judge.is_due(before, self.fraction, self.step - last):
            self._judge_weights()

    def _judge_weights(self) -> None:
        if not self._judge.can:
            return
        started = time.perf_counter()
        loss = self._judge.loss(self._learner.averaged, self._learner.at_once)
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
