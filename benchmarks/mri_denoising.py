"""Measure denoising of MRI: complex images with repeats, and magnitudes with Rician noise.

``abdomen``: eleven repeats of one abdominal slice, complex, one coil; a folder with ``mirt_abd_vl_real.mat`` (of the
Michigan Image Reconstruction Toolbox, needs scipy). One frame is denoised: by a network that learns from it alone, by
Noise2Noise that learns from other frames, and by non-local means of both parts (needs scikit-image). The truth is made
of the frames that were not denoised: root of their mean square less the noise. Breathing blurs it. Noise2Noise is also
measured against frames that it did not learn from (``apart``), with the noise that is left in those taken off.
``rician``: Rician noise on slices of a T1 template, ``nilearn_mni152_t1.nii.gz`` (ICBM 152), or of a real T1 scan,
``niivue_chris_t1.nii.gz``, taken for the truth with what noise it has, of 5, 10 and 15 % of its largest value. The
method ``dipy`` is its non-local means for Rician noise, and runs where dipy is installed, without this package.

Each measurement is a line of JSON. Times are those of the processor.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 11
SIGMAS = (0.05, 0.10, 0.15)
# File, slices, and the part of the largest value above which there is tissue.
VOLUMES = {
    "template": ("nilearn_mni152_t1.nii.gz", slice(80, 96), 0.0),
    "scan": ("niivue_chris_t1.nii.gz", slice(88, 104), 0.15),
}
RIM = 8  # pixels of background around the head
METHODS: dict[str, dict[str, Any]] = {
    "blindspot": {"algorithm": "blindspot", "noise": "rician", "spatial": "ZYX"},
    "blindspot-2d": {"algorithm": "blindspot", "noise": "rician", "spatial": "YX"},
    "gaussian": {"algorithm": "blindspot", "noise": "gaussian", "spatial": "YX"},
    "nb2nb": {"algorithm": "nb2nb", "spatial": "ZYX"},
    "n2v": {"algorithm": "n2v", "spatial": "ZYX"},
}


def score(made: Any, truth: Any, peak: float, left: float = 0.0) -> float:
    """Return the PSNR of magnitudes; ``left`` is the variance of the noise in the truth."""
    error = float(np.mean((np.abs(made) - truth) ** 2)) - left
    return round(10 * float(np.log10(peak**2 / error)), 2)


def amplitude(frames: Any, sigma: float) -> Any:
    """Return the signal that frames have in common: their mean square less that of the noise."""
    return np.sqrt(np.maximum((np.abs(frames) ** 2).mean(0) - 2 * sigma**2, 0))


def read_frames(folder: Path) -> Any:
    """Return the repeats, (frames, Y, X), complex64."""
    from scipy.io import loadmat

    kspace = np.moveaxis(loadmat(folder / "mirt_abd_vl_real.mat")["kdata2"], -1, 0)
    plane = (-2, -1)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, plane), norm="ortho"), plane)
    return images.astype(np.complex64)


def nlm(image: Any, sigma: float) -> Any:
    """Denoise real and imaginary part by non-local means."""
    from skimage.restoration import denoise_nl_means

    how: dict[str, Any] = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma, "fast_mode": True}
    return denoise_nl_means(image.real, **how) + 1j * denoise_nl_means(image.imag, **how)


def abdomen(options: argparse.Namespace) -> None:
    """Denoise single frames in each way."""
    import napari_ssdenoise as ssd

    frames = read_frames(options.data)
    sigma = float(np.std([part[:, :20, :20] - part[:, :20, :20].mean(0) for part in (frames.real, frames.imag)]))
    sigma *= (FRAMES / (FRAMES - 1)) ** 0.5
    for frame in options.frames:
        others = [i for i in range(FRAMES) if i != frame]
        learnt, apart = others[1::2], others[::2]
        truth, separate = amplitude(frames[others], sigma), amplitude(frames[apart], sigma)
        peak = float(np.percentile(truth, 99))
        noisy = ssd.Volume(frames[frame : frame + 1], "TYX")
        for method in options.methods:
            started = time.process_time()
            if method == "noisy":
                made = noisy[...]
            elif method == "nlm":
                made = nlm(frames[frame], sigma)[None]
            elif method == "blindspot":
                model = ssd.train(
                    noisy, method, noise="gaussian", sigma=sigma, steps=options.steps, channels=options.channels
                )
                made = model.predict(noisy, augment=options.augment)
            else:
                series = ssd.Volume(frames[others if method == "n2n-all" else learnt], "TYX")
                how: dict[str, Any] = {"pairs": "frames", "frame_distance": FRAMES}
                model = ssd.train(series, "n2n", steps=options.steps, channels=options.channels, **how)
                made = model.predict(noisy, augment=options.augment)
            left = sigma**2 / len(apart)
            found = {"psnr": score(made[0], truth, peak), "psnr_apart": score(made[0], separate, peak, left)}
            how = {"frame": frame, "method": method, "steps": options.steps, "channels": options.channels}
            how["augment"] = options.augment
            report(**how, **found, seconds=time.process_time() - started)


def rician(options: argparse.Namespace) -> None:
    """Denoise a volume in each way."""
    import nibabel

    name, slices, least = VOLUMES[options.volume]
    image = nibabel.load(options.data / name)
    volume = np.asarray(image.dataobj, np.float32).T[slices]  # type: ignore[attr-defined]
    volume = volume[(slice(None), *(slice(max(0, low - RIM), high + RIM) for low, high in extent(volume.max(0))))]
    peak = float(volume.max())
    rng = np.random.default_rng(0)
    tissue = volume > least * peak
    dark = tissue & (volume <= np.quantile(volume[tissue], 0.25))
    for share in options.sigmas:
        sigma = share * peak
        noisy = np.hypot(volume + rng.normal(0, sigma, volume.shape), rng.normal(0, sigma, volume.shape))
        for method in options.methods:
            started = time.process_time()
            made = denoised(noisy.astype(np.float32), sigma, method, options.steps, augment=options.augment)
            bias = float((made - volume)[dark].mean() / sigma)
            how = {
                "volume": options.volume,
                "sigma": share,
                "method": method,
                "steps": options.steps,
                "psnr": score(made, volume, peak),
            }
            how["augment"] = options.augment
            inside = score(made[tissue], volume[tissue], peak)
            report(**how, psnr_tissue=inside, dark_bias=round(bias, 3), seconds=time.process_time() - started)


def extent(image: Any) -> list[tuple[int, int]]:
    """Return where along Y and X an image is not zero: first and behind the last."""
    found = [np.flatnonzero(image.any(axis)) for axis in (1, 0)]
    return [(int(places[0]), int(places[-1]) + 1) for places in found]


def denoised(noisy: Any, sigma: float, method: str, steps: int, *, augment: bool) -> Any:
    """Denoise a volume, (Z, Y, X), whose noise is known."""
    if method == "noisy":
        return noisy
    if method == "dipy":
        from dipy.denoise.nlmeans import nlmeans  # type: ignore[import-not-found]

        return nlmeans(noisy, sigma=sigma, rician=True, patch_radius=1, block_radius=3, num_threads=1)
    import napari_ssdenoise as ssd

    how = dict(METHODS[method])
    if "noise" in how:
        how["sigma"] = sigma
    model = ssd.train(ssd.Volume(noisy, "ZYX"), how.pop("algorithm"), steps=steps, **how)
    if how.get("noise") != "rician":
        model = model.for_magnitudes(ssd.Magnitude(sigma))
    return model.predict(ssd.Volume(noisy, "ZYX"), augment=augment)


def report(seconds: float, **line: Any) -> None:
    """Print a measurement."""
    print(json.dumps({**line, "processor_seconds": round(seconds, 1)}), flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    of_abdomen = commands.add_parser("abdomen")
    ways = ("noisy", "nlm", "blindspot", "n2n", "n2n-all")
    of_abdomen.add_argument("--frames", type=int, nargs="+", default=[8], choices=range(FRAMES))
    of_abdomen.add_argument("--methods", nargs="+", default=ways, choices=ways)
    of_abdomen.add_argument("--channels", default="auto", choices=("auto", "joint", "independent"))
    of_rician = commands.add_parser("rician")
    of_rician.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    of_rician.add_argument("--volume", default="template", choices=VOLUMES)
    names = ("noisy", "dipy", *METHODS)
    of_rician.add_argument("--methods", nargs="+", default=["noisy", "blindspot"], choices=names)
    for command in (of_abdomen, of_rician):
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--steps", type=int, default=300)
        command.add_argument("--augment", action="store_true", help="average over flips and turns")
    options = parser.parse_args()
    {"abdomen": abdomen, "rician": rician}[options.what](options)


if __name__ == "__main__":
    main()
