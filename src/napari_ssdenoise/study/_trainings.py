"""Train on some of the images of a user, and measure the error on others, without clean ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ssdenoise.engine.device import choose_precision
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT
from napari_ssdenoise.study._fitting import Views, errors_of, network_fitting
from napari_ssdenoise.study._pairs import SIDE
from napari_ssdenoise.study.networks import NetworkStudy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.networks.unet import UNet
    from napari_ssdenoise.study._pairs import Pair

VALIDATING, TESTING = 32, 256  # tiles at most


@dataclass(frozen=True, kw_only=True)
class DataStudySettings:
    """How to train.

    Attributes
    ----------
    seeds
        Trainings on each number of images: other images in the smaller sets, and other first weights.
    steps, batch, rate
        Steps of Adam at most, tiles a step, and the learning rate.
    side
        Of a tile, in pixels.
    width, depth
        Of the U-Net.
    """

    seeds: int = 3
    steps: int = 300
    batch: int = 8
    rate: float = 4e-3
    side: int = SIDE
    width: int = 16
    depth: int = 2

    def network(self) -> NetworkStudy:
        """Return the training's part of it."""
        return NetworkStudy(
            sizes=(1,), seeds=self.seeds, steps=self.steps, batch=self.batch, rate=self.rate, width=self.width,
            depth=self.depth,
        )  # fmt: skip


@dataclass(frozen=True)
class DataTraining:
    """One training: on how many images, and its risk, in squared units of the images' intensities."""

    size: int
    seed: int
    risk: float
    processor_seconds: float


class Judge:
    """Trains on some of the images, and measures the risk on those held out."""

    def __init__(
        self, held: Sequence[Pair], learning: Sequence[Pair], device: torch.device, settings: DataStudySettings
    ) -> None:
        self.learning, self.device, self.settings = learning, device, settings
        every = np.concatenate([pair.first for pair in learning])
        self.centre, self.spread = float(every.mean()), float(every.std()) or 1.0
        rng = np.random.default_rng(0)
        first, second = (np.concatenate([getattr(pair, name) for pair in held]) for name in ("first", "second"))
        order = rng.permutation(len(first))
        count = max(1, min(VALIDATING, len(order) // 3))
        self.validation = self._views(first[order[:count]], second[order[:count]])
        chosen = order[count : count + TESTING] if len(order) > count else order
        self.test = self._views(first[chosen], second[chosen])
        self.noise = float(np.square(first[chosen] - second[chosen]).mean(dtype=float)) / 2

    def training(self, size: int, seed: int) -> Iterator[int | DataTraining]:
        """Train on that many images and measure; yield how many steps are done, and then the outcome."""
        started = time.process_time()
        order = np.random.default_rng([seed, 1]).permutation(len(self.learning))[:size]
        first, second = (
            np.concatenate([getattr(self.learning[i], name) for i in order]) for name in ("first", "second")
        )
        study = self.settings.network()
        views = self._views(first, second)
        network = yield from network_fitting(study, views, self.validation, seed, self.device, turned=True)
        risk = self._risk(network, study) - self.noise
        if risk <= 0:
            raise ValueError(
                "the held-out error is smaller than the noise that the two views show, so they differ by more than "
                "noise: something moves or fades between them, or neighbouring pixels share their noise."
            )
        yield DataTraining(size, seed, risk, time.process_time() - started)

    def _views(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> Views:
        """Both views as inputs, with the other one as the target."""

        def tensor(*images: NDArray[np.float32]) -> Tensor:
            scaled = (np.concatenate(images) - self.centre) / self.spread
            return torch.from_numpy(scaled)[:, None].contiguous(memory_format=MEMORY_FORMAT[2]).to(self.device)

        return Views(noisy=tensor(first, second), target=tensor(second, first))

    def _risk(self, network: UNet, study: NetworkStudy) -> float:
        dtype = choose_precision(self.device, study.precision)
        errors = errors_of(network, self.test.noisy, self.test.target, dtype)
        return float(errors.double().mean()) * self.spread**2
