"""Measure how well the diagnosis finds what the noise of simulated cameras is, and what it says of real images.

``cameras``: images without noise (photographs, and means of 50 fluorescence frames, blurred by a pixel so that no
noise is left) behind a camera without (``scmos``) and with (``emccd``) electron multiplication, with
photons, background, gain, offset and read noise drawn at random; the offset is given. What is printed: the share of the
draws whose gain and read noise are within 10 %, and whose intervals hold the truth.
``real``: FMD (doi 10.7274/r0-ed2r-4052), a series of frames after bleaching (FRAP), and an electron micrograph.

``--data`` is the folder with ``microscopy`` and ``sr``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

import napari_ssdenoise as ssd

PHOTOGRAPHS = ("camera.png", "cell.png", "moon.png", "coins.png")
FMD = ("Confocal_BPAE_B", "Confocal_BPAE_R", "TwoPhoton_BPAE_G")


def scenes(data: Path) -> dict[str, np.ndarray]:
    """Return images from 0 to 1, hardly any noise left."""
    paths = [data / "sr/skimage_data" / name for name in PHOTOGRAPHS]
    paths += [data / "microscopy/fmd_bpae/gt" / f"{kind}_1.png" for kind in FMD]
    found = {}
    for path in paths:
        image = gaussian_filter(np.asarray(Image.open(path).convert("L"), float), 1)
        found[path.stem] = (image - image.min()) / np.ptp(image)
    return found


def scmos(rng: np.random.Generator, photons: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Return the image, and its true gain, offset and read noise."""
    gain = 1 / rng.choice([0.24, 0.46, 1.0])
    read_noise = gain * rng.uniform(1.0, 2.5)
    image = gain * rng.poisson(photons) + 100 + rng.normal(0, read_noise, photons.shape)
    return image, gain, 100.0, read_noise


def emccd(rng: np.random.Generator, photons: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Like `scmos`, with electrons multiplied at random, which doubles the variance."""
    multiplication, electrons_each = rng.uniform(50, 300), rng.uniform(5, 15)
    offset, read_noise = rng.uniform(200, 500), rng.uniform(30, 60) / electrons_each
    seen = rng.poisson(photons)
    electrons = np.where(seen > 0, rng.gamma(np.maximum(seen, 1e-9), multiplication), 0)
    image = electrons / electrons_each + offset + rng.normal(0, read_noise, photons.shape)
    return image, 2 * multiplication / electrons_each, offset, read_noise


def cameras(options: argparse.Namespace) -> None:
    known = scenes(options.data)
    rng = np.random.default_rng(options.seed)
    for name, camera in (("scmos", scmos), ("emccd", emccd)):
        right = []
        for _ in range(options.draws):
            scene = str(rng.choice(list(known)))
            photons = np.exp(rng.uniform(*np.log(options.photons))) * known[scene] + rng.choice([0.0, 0.5, 2.0, 10.0])
            image, gain, offset, read_noise = camera(rng, photons)
            found = ssd.diagnose(np.clip(np.rint(image), 0, 65535).astype(np.uint16), offset=offset)
            truths = (found.gain, gain), (found.read_noise, float(np.hypot(read_noise, 12**-0.5)))  # with the rounding
            away = [float(value) / truth - 1 for value, truth in truths]
            held = [value.low <= truth <= value.high for value, truth in truths]
            hidden = found.read_noise.low == 0 < found.read_noise.high
            right.append((*(abs(a) < 0.1 for a in away), *held, hidden))
            print(f"{name} {scene}: gain {away[0]:+.2f}, read noise {away[1]:+.2f}{' (hidden)' if hidden else ''}")
        facts = zip(("gain", "read noise", "gain's interval", "read noise's", "hidden"), np.sum(right, 0), strict=True)
        print(f"{name}, of {options.draws}: " + ", ".join(f"{fact} {count}" for fact, count in facts))


def real(options: argparse.Namespace) -> None:
    folder = options.data / "microscopy"
    files = sorted((folder / "fmd_bpae/raw").glob("*_1.png")) + sorted((folder / "frap_timeseries").glob("*.tif"))[:3]
    for path in [*files, folder / "sem_n2v/validation.tif"]:
        found = ssd.diagnose(path)
        facts = [w for w, is_so in (("correlated", found.correlated), ("saturated", found.is_saturated)) if is_so]
        print(f"{path.stem}: {', '.join(facts) or 'white'}; {found.algorithm} {dict(found.settings)}")
    for kind in sorted({path.stem[:-2] for path in files if "BPAE" in path.stem}):
        frames = [np.asarray(ssd.open_volume(folder / f"fmd_bpae/raw/{kind}_{i}.png")) for i in (1, 2)]
        found = ssd.diagnose(ssd.Volume(frames[0], "YX"), target=ssd.Volume(frames[1], "YX"))
        print(f"{kind} with a second frame: {found.algorithm}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cameras", "real"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the images, see above")
    parser.add_argument("--draws", type=int, default=20, help="of each camera (default: 20)")
    parser.add_argument("--photons", type=float, nargs=2, default=(10, 500), metavar=("LEAST", "MOST"), help="at white")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.data / "microscopy").is_dir():
        sys.exit(f"skipped: {options.data} has no folder microscopy; see --help.")
    {"cameras": cameras, "real": real}[options.what](options)


if __name__ == "__main__":
    main()
