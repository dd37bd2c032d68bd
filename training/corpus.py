"""The images that weights are learnt from: photographs and micrographs that are there, and drawn ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LEAST = 128  # pixels along the shorter side


def read_images(folders: list[Path]) -> list[NDArray[np.float32]]:
    """Read all images of the folders, grey, in [0, 1]; a stack counts plane by plane."""
    images = []
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in NAMES):
        with Image.open(path) as opened:
            for frame in range(getattr(opened, "n_frames", 1)):
                opened.seek(frame)
                deep = opened.mode.startswith(("I", "F"))
                grey = np.asarray(opened if deep else opened.convert("RGB").convert("L"), np.float32)
                low, high = np.percentile(grey, (0.1, 99.9))
                if min(grey.shape) >= LEAST and high > low:
                    images.append((grey - low) / (high - low) if deep else grey / 255)
    return images


def procedural(rng: np.random.Generator, side: int = 256) -> NDArray[np.float32]:
    """Draw filaments, spots and round bodies, as fluorescence shows them."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    image = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(5, 30)):  # bodies with an edge as sharp as sampling allows
        cy, cx, a, b, t = (*rng.uniform(0, side, 2), *rng.uniform(4, 30, 2), rng.uniform(0, np.pi))
        u, v = (x - cx) * np.cos(t) + (y - cy) * np.sin(t), (y - cy) * np.cos(t) - (x - cx) * np.sin(t)
        edge = (1 - np.hypot(u / a, v / b)) * min(a, b) / rng.uniform(0.5, 1.5)
        image += rng.uniform(0.1, 0.6) / (1 + np.exp(-4 * np.clip(edge, -10, 10)))
    for _ in range(rng.integers(5, 40)):  # filaments
        n = int(rng.integers(40, 300))
        turn = np.cumsum(rng.normal(0, 0.06, n)) + rng.uniform(0, 2 * np.pi)
        py = np.cumsum(np.sin(turn)) + rng.uniform(0, side)
        px = np.cumsum(np.cos(turn)) + rng.uniform(0, side)
        width, light = rng.uniform(0.5, 1.3), rng.uniform(0.1, 0.8)
        for cy, cx in zip(py, px, strict=True):
            low_y, low_x = int(cy) - 4, int(cx) - 4
            if 0 <= low_y < side - 9 and 0 <= low_x < side - 9:
                part = np.s_[low_y : low_y + 9, low_x : low_x + 9]
                spot = light * np.exp(-((y[part] - cy) ** 2 + (x[part] - cx) ** 2) / (2 * width**2))
                np.maximum(image[part], spot, out=image[part])
    for cy, cx in rng.uniform(5, side - 6, (rng.integers(0, 200), 2)):  # spots
        part = np.s_[int(cy) - 4 : int(cy) + 5, int(cx) - 4 : int(cx) + 5]
        width = rng.uniform(0.6, 1.2)
        image[part] += rng.uniform(0.1, 1) * np.exp(-((y[part] - cy) ** 2 + (x[part] - cx) ** 2) / (2 * width**2))
    return image / max(float(image.max()), 1e-3)
