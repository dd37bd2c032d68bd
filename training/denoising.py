"""Train the initial weights that denoising algorithms adapt to an image.

    python training/denoising.py --network blindspot --images FOLDER [FOLDER ...] --out weights/blindspot.safetensors

Noise of many strengths, with and without a part that grows with the intensity, is added to sharp images, and the
network learns what the self-supervised loss would teach it from infinitely many noisy copies of each. Resumable: the
state is written beside the output, and the same command goes on with it. The log (``.jsonl``, beside the output) has
the loss and, now and then, the PSNR on images that are held out.

Use only images whose licence allows to give away what was learnt from them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise._threads import share_processor

share_processor()

import torch  # noqa: E402
from corpus import procedural, read_images  # noqa: E402
from run import Run  # noqa: E402

from napari_ssdenoise.algorithms import get_algorithm  # noqa: E402
from napari_ssdenoise.engine.device import choose_precision  # noqa: E402
from napari_ssdenoise.metrics import psnr  # noqa: E402
from napari_ssdenoise.noise import CONDITIONS, DOUBT, NOISES, NoiseLevel, Prior  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

PATCH = 64
STRENGTH = (0.04, 1.6)  # deviation of the noise, in parts of the image's own
HELD = 9  # every so many images, one is held out
MODEL = NOISES["poisson-gaussian"]


@dataclass(frozen=True)
class Example:
    """Patches (B, 1, y, x) in units of the noisy image's deviation, and what the network is told of the noise."""

    clean: Tensor
    noisy: Tensor
    conditions: Tensor

    @property
    def shown(self) -> Tensor:
        """Input of a network that is told."""
        return torch.cat([self.noisy, self.conditions], 1).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Corpus:
    """Sharp images, which noise is added to."""

    images: list[NDArray[np.float32]]

    def example(self, rng: np.random.Generator, count: int) -> Example:
        """Draw patches of one image with one noise."""
        image = _varied(self.images[rng.integers(len(self.images))], rng)
        patches = []
        for _ in range(count):
            y, x = (rng.integers(n - PATCH + 1) for n in image.shape)
            patch = np.rot90(image[y : y + PATCH, x : x + PATCH], rng.integers(4))
            patches.append(patch[::-1] if rng.random() < 0.5 else patch)
        return noisy_example(np.stack(patches)[:, None], image, *random_noise(rng), rng)

    def mixed(self, rng: np.random.Generator, count: int) -> Example:
        """Draw patches of different images with different noise."""
        drawn = [self.example(rng, 1) for _ in range(count)]
        return Example(*(torch.cat([getattr(e, n) for e in drawn]) for n in ("clean", "noisy", "conditions")))


def _varied(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image at half its size, inverted or with another gradation, or as it is."""
    if rng.random() < 0.4 and min(image.shape) >= 4 * PATCH:
        y, x = (n // 2 * 2 for n in image.shape)
        image = image[:y, :x].reshape(y // 2, 2, x // 2, 2).mean((1, 3))
    image = 1 - image if rng.random() < 0.15 else image
    return np.clip(image, 0, 1) ** rng.uniform(0.6, 2.5) if rng.random() < 0.4 else image


def random_noise(rng: np.random.Generator) -> tuple[float, float]:
    """Draw its strength and the share of its variance that grows with the intensity."""
    strength = float(np.exp(rng.uniform(*np.log(STRENGTH))))
    return strength, 0.0 if rng.random() < 0.4 else float(rng.uniform(0.2, 1))


def noisy_example(
    patches: NDArray[np.float32],
    image: NDArray[np.float32],
    strength: float,
    share: float,
    rng: np.random.Generator,
) -> Example:
    """Add noise to patches of an image, and bring them to zero mean and unit variance of the noisy image."""
    some = image[::3, ::3]
    mean, std, low = float(some.mean()), max(float(some.std()), 1e-3), float(some.min())
    variance = (strength * std) ** 2
    gain = share * variance / max(mean - low, 1e-3)
    level = NoiseLevel(gain=gain, offset=low, read_noise=((1 - share) * variance) ** 0.5)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    clean = torch.from_numpy(np.ascontiguousarray(patches, np.float32))
    noisy = MODEL.corrupt(clean, level, generator)
    deviation = (std**2 + variance) ** 0.5
    told = torch.tensor([*MODEL.conditions(level, mean, deviation), DOUBT], dtype=torch.float32)
    conditions = told.reshape(1, CONDITIONS, 1, 1).expand(len(clean), -1, *clean.shape[2:])
    return Example((clean - mean) / deviation, (noisy - mean) / deviation, conditions)


def blindspot_loss(network: Any, example: Example) -> Tensor:
    """Return the negative log-likelihood of a noisy pixel, averaged over all noise that it could have had."""
    raw = network(example.shown).float()
    conditions = raw[:, -CONDITIONS:]
    prior: Prior = MODEL.prior(raw[:, :-CONDITIONS], conditions)
    variance = MODEL.deviation(prior.mean, conditions).square()
    total = prior.covariance[..., 0, 0][:, None] + variance
    error = (example.clean - prior.mean).square() + MODEL.deviation(example.clean, conditions).square()
    return 0.5 * (total.log() + error / total).mean()


def unet_loss(network: Any, example: Example) -> Tensor:
    """Return the squared error, in parts of the noise's deviation, so that weak noise counts as well."""
    deviation = MODEL.deviation(example.clean, example.conditions).square().mean().sqrt()
    noisy = example.noisy.contiguous(memory_format=torch.channels_last)
    return (network(noisy).float() - example.clean).square().mean() / deviation


class Training(Run):
    """The one stage of it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        images = read_images(arguments.images)
        rng = np.random.default_rng(arguments.seed)
        images += [procedural(rng) for _ in range(arguments.procedural)]
        self.held = [image[:256, :256] for image in images[::HELD]]
        self.corpus = Corpus([image for number, image in enumerate(images) if number % HELD])
        blind = arguments.network == "blindspot"
        self.algorithm = get_algorithm("blindspot", noise="poisson-gaussian") if blind else get_algorithm("nb2nb")
        # Batch norm must see in training what it will see: patches of one image.
        self.draw = self.corpus.mixed if blind else self.corpus.example
        self.loss = blindspot_loss if blind else unet_loss
        torch.manual_seed(arguments.seed)
        network = self.algorithm.build(1, (True, True))
        super().__init__(network, arguments.out, arguments.start, arguments.seed)
        self.dtype = choose_precision(torch.device("cpu"))
        self.autocast = partial(torch.autocast, "cpu", self.dtype, enabled=self.dtype is torch.bfloat16)
        self.log(event="start", images=len(self.corpus.images), held=len(self.held), step=self.step)

    def run(self) -> None:
        self.train(0, self.take_step, self.arguments.minutes, self.evaluate)
        self.save()

    def take_step(self, progress: float) -> float:
        self.set_rate(self.arguments.rate, progress)
        with self.autocast():
            loss = self.loss(self.network, self.draw(self.rng(), self.arguments.patches))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the mean PSNR of the held-out images, with weak and with strong noise of two kinds."""
        network = self.algorithm.build(1, (True, True)).to(memory_format=torch.channels_last).eval()
        network.load_state_dict(self.averaged)
        out: dict[str, float] = {}
        for strength, share in ((0.15, 0.0), (0.4, 0.0), (0.4, 0.9), (1.0, 0.9)):
            scores = []
            for number, image in enumerate(self.held):
                example = noisy_example(image[None, None], image, strength, share, np.random.default_rng(number))
                with self.autocast():
                    if self.arguments.network == "blindspot":
                        result = self.algorithm.predict(network, example.shown)["mean"]
                    else:
                        result = self.algorithm.predict(network, example.noisy)["mean"]
                clean = example.clean[0, 0].numpy()
                scores.append(psnr(result[0, 0].numpy(), clean, float(clean.max() - clean.min())))
            out[f"noise {strength} ({share:.0%} photons)"] = round(float(np.mean(scores)), 3)
        return out


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("blindspot", "unet"), required=True)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders to learn from")
    parser.add_argument("--out", type=Path, required=True, help="weights to write")
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--minutes", type=float, default=60, help="processor minutes")
    parser.add_argument("--patches", type=int, default=4, help="a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's step size")
    parser.add_argument("--procedural", type=int, default=60, help="drawn images to add")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    Training(parse()).run()
