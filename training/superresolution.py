"""Train the initial weights that ``ssdenoise upscale`` adapts to an image.

    python training/superresolution.py --images FOLDER [FOLDER ...] --factors 2,2 --out weights/sr-x2.safetensors

Two stages, as Soh et al. (2020) have them: supervised on many kinds of blur, then meta-training, where each task is one
kind of blur. Both are resumable: the state is written beside the output, and the same command goes on with it. The log
(``.jsonl``, beside the output) has a line per report, with the loss and, now and then, the PSNR on images that are held
out, before and after a few updates on themselves.

Use only images whose licence allows to give away what was learnt from them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_ssdenoise._threads import share_processor

share_processor()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from corpus import procedural, read_images  # noqa: E402
from run import Run  # noqa: E402

from napari_ssdenoise.engine.device import choose_precision  # noqa: E402
from napari_ssdenoise.engine.meta import Inner, Task, meta_gradient, step_weights  # noqa: E402
from napari_ssdenoise.metrics import psnr  # noqa: E402
from napari_ssdenoise.networks.resnet_sr import ResidualNet  # noqa: E402
from napari_ssdenoise.ops.degrade import Degradation  # noqa: E402
from napari_ssdenoise.ops.kernels import random_covariance  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATCH = 64  # of the sharp image
CONTRAST = (0.4, 1.0)  # of the grey range that a patch is scaled to


@dataclass(frozen=True)
class Corpus:
    """The images, and the kinds of blur that are drawn."""

    images: list[NDArray[np.float32]]
    choices: list[tuple[int, int]]

    def degradation(self, rng: np.random.Generator) -> Degradation:
        """Draw how images are made coarse: blur and sampling on either grid, the box of a camera's pixel, bicubic."""
        # A single choice draws nothing, so that the shipped weights can be made again.
        factors = self.choices[rng.integers(len(self.choices)) if len(self.choices) > 1 else 0]
        covariance = random_covariance(rng, factors)
        kind = rng.random()
        if kind < 0.15:
            return Degradation.bicubic(factors, covariance if rng.random() < 0.7 else None)
        if kind < 0.3:
            boxes = [np.ones(f) / f for f in factors]
            blur = np.outer(*boxes).astype(np.float32)
            return Degradation(blur, factors)
        return Degradation.gaussian(covariance, factors, "topleft" if rng.random() < 0.4 else "registered")

    def sharp(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """Draw patches (count, 1, y, x), turned and with a contrast of their own."""
        patches = []
        for _ in range(count):
            image = self.images[rng.integers(len(self.images))]
            y, x = (rng.integers(n - PATCH + 1) for n in image.shape)
            patch = image[y : y + PATCH, x : x + PATCH]
            patch = np.rot90(patch, rng.integers(4))
            patch = patch[::-1] if rng.random() < 0.5 else patch
            patch = 1 - patch if rng.random() < 0.15 else patch
            gain = rng.uniform(*CONTRAST)
            patches.append(patch * gain + rng.uniform(0, 1 - gain))
        return torch.from_numpy(np.stack(patches)[:, None].astype(np.float32))

    def pair(self, rng: np.random.Generator, degradation: Degradation, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw enlarged coarse patches and sharp ones."""
        sharp = self.sharp(rng, count)
        coarse = degradation.down(sharp)
        if rng.random() < 0.3:
            coarse = (255 * coarse).round() / 255
        return degradation.up(coarse).contiguous(memory_format=torch.channels_last), sharp

    def mixed(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw pairs with a blur of their own each."""
        pairs = [self.pair(rng, self.degradation(rng), 1) for _ in range(count)]
        return torch.cat([p[0] for p in pairs]).contiguous(memory_format=torch.channels_last), torch.cat(
            [p[1] for p in pairs]
        )

    def task(self, rng: np.random.Generator, count: int) -> Task:
        degradation = self.degradation(rng)
        return Task(self.pair(rng, degradation, count), self.pair(rng, degradation, count))


class Training(Run):
    """Both stages."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        images = read_images(arguments.images)
        rng = np.random.default_rng(arguments.seed)
        images += [procedural(rng) for _ in range(arguments.procedural)]
        judges = arguments.judges
        self.held = [image[:256, :256] for image in images[:: max(1, len(images) // judges)]][:judges]
        self.corpus = Corpus(images, arguments.factors)
        torch.manual_seed(arguments.seed)
        super().__init__(ResidualNet(2), arguments.out, arguments.start, arguments.seed)
        self.dtype = choose_precision(torch.device("cpu"))
        self.log(event="start", images=len(images), stage=self.stage, step=self.step)

    def run(self) -> None:
        self.train(0, self.supervised, self.arguments.supervised, self.evaluate)
        self.train(1, self.meta, self.arguments.meta, self.evaluate)
        self.save()

    def supervised(self, progress: float) -> float:
        """One step on patches with a blur each."""
        self.set_rate(self.arguments.rate, progress)
        enlarged, sharp = self.corpus.mixed(self.rng(), 16)
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is torch.bfloat16):
            loss = F.l1_loss(self.network(enlarged).float(), sharp)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def meta(self, progress: float) -> float:
        """One step of meta-training on a few tasks."""
        self.set_rate(1e-4, progress)
        rng, arguments = self.rng(), self.arguments
        inner = Inner(arguments.inner, 1e-2, second_order=arguments.order == 2)
        counts = step_weights(2 * progress, inner.steps)
        weights = dict(self.network.named_parameters())
        total = {name: torch.zeros_like(w) for name, w in weights.items()}
        last = 0.0
        for _ in range(arguments.tasks):
            task = self.corpus.task(rng, 4)
            with torch.autocast("cpu", self.dtype, enabled=self.dtype is torch.bfloat16 and arguments.order == 1):
                slopes, losses = meta_gradient(self.network, weights, task, inner, counts)
            for name, slope in slopes.items():
                total[name] += slope / arguments.tasks
            last += losses[-1] / arguments.tasks
        for name, w in weights.items():
            w.grad = total[name]
        self.optimizer.step()
        return last

    def evaluate(self) -> dict[str, float]:
        """Return the mean PSNR on parts that every blur is new to, before and after 20 updates (Adam 1e-4)."""
        factors = self.arguments.factors[0]
        covariances = {"sharp": 0.3, "soft": 1.0 * max(factors)}
        out: dict[str, float] = {}
        for name, variance in covariances.items():
            degradation = Degradation.gaussian([variance if f > 1 else 0.0 for f in factors], factors)
            found = []
            for image in self.held:
                sharp = torch.from_numpy(np.ascontiguousarray(image))[None, None]
                coarse = degradation.down(sharp)
                found.append(self._adapted(degradation, coarse, sharp))
            for key, values in zip(("start", "adapted", "cubic"), zip(*found, strict=True), strict=True):
                out[f"{name} {key}"] = round(float(np.mean(values)), 3)
        return out

    def _adapted(self, degradation: Degradation, coarse: torch.Tensor, sharp: torch.Tensor) -> tuple[float, ...]:
        network = ResidualNet(2).to(memory_format=torch.channels_last)
        network.load_state_dict(self.averaged)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        even = coarse[..., : coarse.shape[-2] // 8 * 8, : coarse.shape[-1] // 8 * 8]
        son = degradation.up(degradation.down(even)).contiguous(memory_format=torch.channels_last)
        enlarged = degradation.up(coarse).contiguous(memory_format=torch.channels_last)
        scores = [psnr(degradation.up(coarse)[0, 0].numpy(), sharp[0, 0].numpy(), 1.0)]
        for step in range(21):
            with torch.autocast("cpu", self.dtype, enabled=self.dtype is torch.bfloat16):
                if step in (0, 20):
                    with torch.no_grad():
                        scores.append(psnr(network(enlarged).float()[0, 0].numpy(), sharp[0, 0].numpy(), 1.0))
                loss = F.l1_loss(network(son).float(), even)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return scores[1], scores[2], scores[0]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders to learn from")
    parser.add_argument(
        "--factors",
        type=lambda text: tuple(int(n) for n in text.split(",")),
        nargs="+",
        default=[(2, 2)],
        help="y,x; with several of them, one network learns all, and is judged by the first",
    )
    parser.add_argument("--out", type=Path, required=True, help="weights to write")
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--supervised", type=float, default=60, help="processor minutes of the first stage")
    parser.add_argument("--meta", type=float, default=60, help="processor minutes of the second stage")
    parser.add_argument("--rate", type=float, default=4e-4, help="Adam's, in the first stage")
    parser.add_argument("--order", type=int, choices=(1, 2), default=1, help="of the meta-gradient")
    parser.add_argument("--inner", type=int, default=5, help="updates within a task")
    parser.add_argument("--tasks", type=int, default=1, help="per meta-step")
    parser.add_argument("--procedural", type=int, default=60, help="drawn images to add")
    parser.add_argument("--judges", type=int, default=6, help="images to measure the progress with")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    Training(parse()).run()
