"""What learning without clean images costs a network: its error against the number of training images.

One network is trained on nested sets of images, once against clean targets and once against noisy ones. Every image
has one noisy input and one noisy target, drawn once: fresh noise in every epoch would be more data than anyone has.
The images, the setting and the measurements are those of Klug, Atik and Heckel: Analyzing the sample complexity of
self-supervised image reconstruction methods. NeurIPS 2023.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ssdenoise.engine.device import Precision, choose_device, choose_precision
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT
from napari_ssdenoise.study._fitting import Views, errors_of, last, network_fitting
from napari_ssdenoise.study._ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.networks.unet import UNet

CENTRE, SPREAD = 0.5, 0.25  # of intensities from 0 to 1, so that the network sees values around 0


@dataclass(frozen=True, kw_only=True)
class NetworkStudy:
    """What to train, on how many images, and how often.

    Attributes
    ----------
    sizes
        Numbers of training images; smaller sets are part of larger ones.
    noise
        Standard deviation of the inputs' noise; intensities go from 0 to 1.
    target_noise
        Standard deviations of the targets' noise; 0 is supervised learning.
    seeds
        Trainings of each kind; a seed decides which images are in the smaller sets, the noise and the first weights.
    validation, test
        Images that choose among the weights on the way (against targets as noisy as those of the training), and
        images that measure the risk, against the clean truth. Neither is trained on.
    width, depth
        Of the U-Net.
    steps, batch, rate
        Most steps of Adam in each training, whatever the size; images a step; the learning rate, which falls along a
        cosine. A training on few images ends as soon as it has clearly begun to learn them by heart.
    precision
        Of the network's body; ``"auto"`` is bfloat16 where the machine multiplies it natively.
    """

    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    noise: float = 25 / 255
    target_noise: tuple[float, ...] = (0.0, 25 / 255, 50 / 255)
    seeds: int = 3
    validation: int = 48
    test: int = 96
    width: int = 16
    depth: int = 2
    steps: int = 600
    batch: int = 8
    rate: float = 4e-3
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        sizes = tuple(sorted(set(self.sizes)))
        if not sizes or sizes[0] < 1 or min(self.seeds, self.validation, self.test, self.steps, self.batch) < 1:
            raise ValueError(
                "sizes, seeds, steps, batch and the numbers of validation and test images must be 1 or more."
            )
        if min(self.noise, *self.target_noise) < 0 or len(set(self.target_noise)) < len(self.target_noise):
            raise ValueError(f"noise levels {self.target_noise} must differ, and none may be negative.")
        object.__setattr__(self, "sizes", sizes)

    @property
    def images(self) -> int:
        """How many clean images it takes."""
        return self.sizes[-1] + self.validation + self.test


@dataclass(frozen=True)
class Training:
    """The outcome of one training: one line of the ledger.

    Attributes
    ----------
    size, target_noise, seed
        Which one.
    risk
        Mean squared error on the test images against their truth; intensities go from 0 to 1.
    psnr
        The same in decibels: mean over images, over a range of 1.
    processor_seconds
        Time that all processor cores together spent on it.
    """

    size: int
    target_noise: float
    seed: int
    risk: float
    psnr: float
    processor_seconds: float


@dataclass(frozen=True)
class KnownViews(Views):
    """Those of which the truth is known."""

    clean: Tensor


def views(clean: NDArray[Any], noise: float, target_noise: float, seed: int, numbers: Sequence[int]) -> KnownViews:
    """Give every image its one noisy pair.

    Parameters
    ----------
    clean : (N, Y, X)
        From 0 to 1.
    noise, target_noise
        Standard deviations.
    seed, numbers : N
        Decide the noise of each image, so that it is the same in every set that the image is part of. The target's
        noise is the same pattern at all levels, and independent of the input's.
    """
    rngs = [np.random.default_rng([seed, number]) for number in numbers]
    noisy = np.stack([c + noise * r.standard_normal(c.shape) for c, r in zip(clean, rngs, strict=True)])
    target = np.stack([c + target_noise * r.standard_normal(c.shape) for c, r in zip(clean, rngs, strict=True)])

    def tensor(images: NDArray[Any]) -> Tensor:
        scaled = torch.from_numpy(((images - CENTRE) / SPREAD).astype(np.float32))[:, None]
        return scaled.contiguous(memory_format=MEMORY_FORMAT[2])

    return KnownViews(noisy=tensor(noisy), target=tensor(target), clean=tensor(np.asarray(clean)))


def study_networks(
    clean: NDArray[Any], study: NetworkStudy | None = None, *, ledger: Path | None = None, device: str = "auto"
) -> Iterator[Training]:
    """Train on every size with every target and seed, and measure the risk of each.

    Parameters
    ----------
    clean : (N, Y, X)
        Clean images from 0 to 1; height and width divisible by 2**depth.
    study
        Sizes, targets and the rest; by default six sizes up to 256, clean targets and two noisy ones, three seeds.
    ledger
        A file of JSON lines that keeps what is done, so that a stopped study goes on. Of another study on other
        images or with other settings, lines stay and are not used.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``...

    Yields
    ------
    Training
        Those in the ledger first.

    Raises
    ------
    ValueError
        If there are too few images, or their sizes do not fit the network.
    """
    study = study or NetworkStudy()
    clean = np.asarray(clean, np.float32)
    stride = 2**study.depth
    if clean.ndim != 3 or clean.shape[1] % stride or clean.shape[2] % stride:
        raise ValueError(f"images {clean.shape} must be (N, Y, X), with Y and X divisible by {stride}.")
    if len(clean) < study.images:
        raise ValueError(
            f"{study.sizes[-1]} training, {study.validation} validation and {study.test} test images make "
            f"{study.images}, but there are {len(clean)}. Give more images or smaller sizes."
        )
    book = Ledger(ledger, _fingerprint(clean, study))
    done = {(e["size"], e["target_noise"], e["seed"]): e for e in book.read()}
    chosen = choose_device(device)
    for seed in range(study.seeds):
        for size in study.sizes:
            for target_noise in study.target_noise:
                entry = done.get((size, target_noise, seed))
                if entry is None:
                    training, _ = train_once(clean, study, size, target_noise, seed, chosen)
                    book.add(asdict(training))
                else:
                    training = Training(**{k: v for k, v in entry.items() if k != "study"})
                yield training


def _fingerprint(clean: NDArray[Any], study: NetworkStudy) -> str:
    """Identify what a training depends on besides its own size, target and seed."""
    facts = {k: v for k, v in asdict(study).items() if k not in ("sizes", "target_noise", "seeds")}
    digest = hashlib.sha256(json.dumps([facts, clean.shape], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(clean).tobytes())
    return digest.hexdigest()[:16]


def split(count: int, study: NetworkStudy, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the numbers of the training (in the order in which sets grow), validation and test images.

    Test and validation images are the last ones, for all seeds and sizes.
    """
    numbers = np.arange(count)
    held = study.validation + study.test
    order = np.random.default_rng([seed, 1]).permutation(numbers[: count - held])
    return order, numbers[count - held : count - study.test], numbers[count - study.test :]


def train_once(
    clean: NDArray[Any], study: NetworkStudy, size: int, target_noise: float, seed: int, device: torch.device
) -> tuple[Training, UNet]:
    """Train on a set of images, keep the weights that validate best, and measure their risk."""
    started = time.process_time()
    order, validating, testing = split(len(clean), study, seed)

    def of(numbers: NDArray[Any]) -> KnownViews:
        made = views(clean[numbers], study.noise, target_noise, seed, [int(n) for n in numbers])
        return KnownViews(*(t.to(device) for t in (made.noisy, made.target, made.clean)))

    network = last(network_fitting(study, of(order[:size]), of(validating), seed, device))
    test = of(testing)
    dtype = choose_precision(device, study.precision)
    errors = errors_of(network, test.noisy, test.clean, dtype) * SPREAD**2
    training = Training(
        size=size,
        target_noise=target_noise,
        seed=seed,
        risk=float(errors.mean()),
        psnr=float((-10 * errors.log10()).mean()),
        processor_seconds=time.process_time() - started,
    )
    return training, network


def gradient_variance(
    network: UNet,
    clean: NDArray[Any],
    noise: float = 25 / 255,
    target_noise: Sequence[float] = (0.0, 25 / 255, 50 / 255),
    *,
    seed: int = 0,
) -> list[float]:
    """Measure how much single images' gradients scatter, with clean and with noisy targets.

    The noise of a target adds its variance times a constant of the network: from no noise to 50 the variance grows
    four times as much as from none to 25. Each level has noise of its own, so that nothing makes that true but the
    mathematics.

    Parameters
    ----------
    network
        Is left as it is.
    clean : (N, Y, X)
        From 0 to 1; hundreds, for a variance within some per cent.
    noise, target_noise
        Standard deviations; the first level is the reference.
    seed
        Of the noise.

    Returns
    -------
    variances
        For each level, E |g - E g|**2 / E |g0|**2, where g0 is a gradient at the first level.
    """
    network.eval()
    device = next(network.parameters()).device
    parameters = [p for p in network.parameters() if p.requires_grad]
    numbers = range(len(clean))
    found: list[float] = []
    reference = 0.0
    for level, sigma in enumerate(target_noise):
        pairs = views(clean, noise, 0.0, seed, numbers)
        rng = np.random.default_rng([seed, 3, level])
        extra = torch.from_numpy(rng.standard_normal(pairs.clean.shape).astype(np.float32)) * (sigma / SPREAD)
        squares, total = 0.0, [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for noisy, target in zip(pairs.noisy.to(device), (pairs.clean + extra).to(device), strict=True):
            loss = (network(noisy[None]).float() - target[None]).square().mean()
            gradient = torch.autograd.grad(loss, parameters)
            squares += sum(float(g.double().square().sum()) for g in gradient)
            for sum_, g in zip(total, gradient, strict=True):
                sum_ += g
        n = len(clean)
        mean = sum(float((t / n).square().sum()) for t in total)
        reference = reference or squares / n
        found.append((squares / n - mean) * n / (n - 1) / reference)
    return found


def with_sizes(study: NetworkStudy, images: int) -> NetworkStudy:
    """Return a study whose sizes, halving from the largest, fit a number of images."""
    most = images - study.validation - study.test
    sizes = tuple(s for s in study.sizes if s <= most)
    return replace(study, sizes=sizes) if sizes else study
