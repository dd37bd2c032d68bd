"""Measure the reconstruction of MRI: on a real slice with its truth, and the training over many slices.

``formats``: that fastMRI, ISMRMRD and MATLAB files of one slice give identical k-space, and those their libraries read.
``slice``: a real slice of a brain, 8 coils, fully sampled, of which 80 of 320 lines are kept (26 in the centre);
zero-filling, CG-SENSE and compressed sensing, with the strength that held-out lines choose and the one that the truth
would. ``learn``: the same with zero-shot learning, its mixture with compressed sensing, and what ``auto`` takes.
``slices``: supervised and self-supervised training over more and more slices; the self-supervised network splits the
lines anew in every step, the supervised one sees each slice with 8 masks. **Semi-synthetic**: slices of a template of
the brain, seen by the coils of the real slice, with noise.

PSNR and SSIM are of magnitudes, over the largest value of the truth: the combination, with the maps of that mask, of
all of k-space. Only columns 20 to 148 of the real slice count, as the head is larger than the field of view outside.
Seconds are of the processor. ``--data`` is the folder with ``mri``. Each measurement is a line of JSON in ``--results``
and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from napari_ssdenoise._threads import share_processor

share_processor()

import torch  # noqa: E402

import napari_ssdenoise as ssd  # noqa: E402
from napari_ssdenoise.ops.kspace import fft, ifft  # noqa: E402
from napari_ssdenoise.reconstruction import _linear, _wavelet  # noqa: E402
from napari_ssdenoise.reconstruction._problem import combined, prepare  # noqa: E402

FASTMRI, ISMRMRD, MATLAB = (
    "mri/kspace/derived_brain8ch_fastmri.h5",
    "mri/kspace/derived_brain8ch_ismrmrd.h5",
    "mri/kspace/lustig_brain_alias_8ch.mat",
)
TEMPLATE = "mri/volumes/nilearn_mni152_t1.nii.gz"
SEEDS = (0, 1, 2)
SEEN = slice(20, 148)
# Of the semi-synthetic slices: size, coils' lines in the centre, parts of the lines in all and in a network's input.
SHAPE, CENTRE, ACQUIRED, GIVEN, NOISE = (96, 84), 12, 1 / 3, 1 / 4, 0.01
SIZES, TESTED = (2, 6, 18, 54), 12
MASKS = 8  # of each slice, for the supervised network


def lines(seed: int, n: int = 320, centre: int = 26, others: int = 54) -> np.ndarray:
    """Return the lines that are kept: the centre, and others at random."""
    rng = np.random.RandomState(seed)
    mask = np.zeros(n, bool)
    start = (n - centre + 1) // 2
    mask[start : start + centre] = True
    mask[rng.choice(np.flatnonzero(~mask), others, replace=False)] = True
    return mask


def formats(data: Path) -> dict[str, Any]:
    """Compare what is read with what the libraries read."""
    import h5py
    import ismrmrd
    from scipy.io import loadmat

    with h5py.File(data / FASTMRI) as file:
        truth = file["kspace"][0]
    dataset = ismrmrd.Dataset(str(data / ISMRMRD), "dataset", mode="r")
    raw = np.zeros_like(truth)
    for number in range(dataset.number_of_acquisitions()):
        line = dataset.read_acquisition(number)
        raw[:, :, line.idx.kspace_encode_step_1] = line.data
    dataset.close()
    matlab = loadmat(data / MATLAB)["DATA"].transpose(2, 0, 1).astype(np.complex64)
    ours = [
        ssd.open_kspace(data / name, axes="YXC" if name == MATLAB else None).read(0)[0]
        for name in (FASTMRI, ISMRMRD, MATLAB)
    ]
    return {
        "fastmri_as_h5py": bool(np.array_equal(ours[0], truth)),
        "ismrmrd_as_library": bool(np.array_equal(ours[1], raw)),
        "matlab_as_scipy": bool(np.array_equal(ours[2], matlab)),
        "all_identical": bool(np.array_equal(ours[0], ours[1]) and np.array_equal(ours[0], ours[2][:, :, 44:212])),
    }


def scores(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    peak = float(truth.max())
    return {"psnr": ssd.psnr(image, truth, peak), "ssim": ssd.ssim(image, truth, peak)}


def truth_of(data: Path, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the magnitudes that all of k-space gives: of the first set of maps, and of all of them."""
    full = torch.from_numpy(ssd.open_kspace(data / FASTMRI).read(0)[0])
    images = (ifft(full) * torch.from_numpy(maps).conj()).sum(1)
    return images[0].abs().numpy()[:, SEEN], combined(images).abs().numpy()[:, SEEN]


def spent(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    found = call()
    return found, time.process_time() - started


def real_slice(data: Path, seed: int, method: str) -> dict[str, Any]:
    """Reconstruct the real slice with one method."""
    kspace = ssd.open_kspace(data / FASTMRI, mask=lines(seed))
    result, seconds = spent(lambda: ssd.reconstruct(kspace, method))
    found = result.slices[0]
    first, both = truth_of(data, found.maps)
    image = np.abs(found.image)[:, SEEN]
    one_set = {f"{k}_one_set": v for k, v in scores(image, first).items()}
    return {
        **scores(image, both),
        **one_set,
        "held_out": found.error,
        "strength": found.settings.get(method),
        "cpu": seconds,
    }


def oracle(data: Path, seed: int, method: str) -> dict[str, Any]:
    """Find the strength that the truth would choose."""
    problem = prepare(*ssd.open_kspace(data / FASTMRI, mask=lines(seed)).read(0))
    _, both = truth_of(data, problem.maps.numpy())
    best: dict[str, Any] = {"psnr": 0.0}
    for strength in _linear.WEIGHTS if method == "cg-sense" else _wavelet.THRESHOLDS:
        if method == "cg-sense":
            image = _linear.cg_sense(problem, strength)
        else:
            *_, image = _wavelet.compressed_sensing(problem, strength, torch.Generator().manual_seed(seed))
        found = scores(combined(image).abs().numpy()[:, SEEN] * problem.scale, both)
        if found["psnr"] > best["psnr"]:
            best = {**found, "strength": strength}
    return best


def learnt(data: Path, seed: int, steps: int) -> list[dict[str, Any]]:
    """Let all methods take part, and score each of them as well as the one that is taken."""
    from napari_ssdenoise.reconstruction import _run

    seen: dict[str, Any] = {}
    original = _run._choose

    def remember(problem: Any, mask: Any, found: Any, chosen: Any) -> Any:
        seen["problem"], seen["found"] = problem, dict(found)
        return original(problem, mask, found, chosen)

    _run._choose = remember
    try:
        kspace = ssd.open_kspace(data / FASTMRI, mask=lines(seed))
        result, seconds = spent(lambda: ssd.reconstruct(kspace, "auto", steps=steps))
    finally:
        _run._choose = original
    found = result.slices[0]
    first, both = truth_of(data, found.maps)
    rows = []
    for name, candidate in seen["found"].items():
        image = combined(candidate.image).abs().numpy()[:, SEEN] * seen["problem"].scale
        one_set = {f"{k}_one_set": v for k, v in scores(image, first).items()}
        row = {"method": name, **scores(image, both), **one_set, "held_out": found.errors[name]}
        rows.append({**row, "taken": name == found.method, "cpu_all": seconds})
    return rows


class Slices:
    """Semi-synthetic slices: a template, seen by the coils of the real slice, with noise that is drawn once."""

    def __init__(self, data: Path) -> None:
        from napari_ssdenoise.io import read_volume

        head = read_volume(data / TEMPLATE)[...].astype(np.float32)
        maps = prepare(*ssd.open_kspace(data / FASTMRI).read(0)).maps[0]
        rows, columns = (torch.linspace(0, n - 1, m).round().long() for n, m in zip(maps.shape[1:], SHAPE, strict=True))
        self.maps = maps[:, rows][:, :, columns]
        chosen = np.linspace(0.25, 0.75, TESTED + SIZES[-1]) * (len(head) - 1)
        planes = [_resized(head[round(z)]) for z in chosen]
        order = np.random.RandomState(0).permutation(len(planes))
        self.images = torch.stack([torch.from_numpy(planes[i]) for i in order])
        self.images = self.images / self.images.amax((1, 2), keepdim=True)
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
        turn = torch.from_numpy(np.random.RandomState(1).uniform(-1, 1, (len(order), 3, 1, 1)).astype(np.float32))
        phase = turn[:, 0] * y + turn[:, 1] * x + turn[:, 2] * x * y
        signal = torch.polar(self.images, phase)[:, None] * self.maps
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(signal.shape, dtype=torch.complex64, generator=generator)
        self.kspace = (fft(signal) + NOISE * noise).numpy()

    def masks(self, part: float, seed: int) -> np.ndarray:
        """Return a mask for each slice, (slices, Y, X), of a part of the lines."""
        n = SHAPE[0]
        count = len(self.images)
        drawn = [lines(1000 * seed + i, n, CENTRE, round(part * n) - CENTRE) for i in range(count)]
        return np.broadcast_to(np.stack(drawn)[:, :, None], (count, *SHAPE))

    def score(self, method: Any) -> float:
        """Return the mean PSNR over the tested slices."""
        masks = self.masks(GIVEN, 9)
        found = []
        for i in range(TESTED):
            kspace = ssd.open_kspace(self.kspace[i] * masks[i])
            result = ssd.reconstruct(kspace, method)
            found.append(ssd.psnr(np.abs(result.image[0]), self.images[i].numpy(), 1.0))
        return float(np.mean(found))


def _resized(plane: np.ndarray) -> np.ndarray:
    """Bring a plane to the size of the slices, without aliases."""
    spectrum = np.fft.fftshift(np.fft.fft2(plane))
    cut = [slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(plane.shape, (128, 112), strict=True)]
    small = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum[tuple(cut)]))).astype(np.float32)
    top, left = (128 - SHAPE[0]) // 2, (112 - SHAPE[1]) // 2
    return small[top : top + SHAPE[0], left : left + SHAPE[1]]


def trained(slices: Slices, loss: str, size: int, steps: int) -> dict[str, Any]:
    """Train over some slices, and score the network on others."""
    chosen = slice(TESTED, TESTED + size)
    options: dict[str, Any] = {"steps": steps, "seed": 0}
    if loss == "supervised":
        options["masks"] = np.concatenate([slices.masks(GIVEN, 30 + i)[chosen] for i in range(MASKS)])
        data = np.concatenate([slices.kspace[chosen]] * MASKS)
    else:
        data = slices.kspace[chosen] * slices.masks(ACQUIRED, 4)[chosen][:, None]
    model, seconds = spent(lambda: ssd.train_reconstruction(data, loss, **options))
    return {"psnr": slices.score(model), "cpu": seconds}


def measure(arguments: argparse.Namespace) -> Iterable[tuple[dict[str, Any], Callable[[], Any]]]:
    """Yield the name of every measurement and how it is done."""
    data, part = arguments.data, arguments.part
    if part == "formats":
        yield {"part": part}, lambda: formats(data)
    if part == "slice":
        for seed in SEEDS:
            for method in ("zero-filled", "cg-sense", "cs", "auto"):
                yield {"part": part, "seed": seed, "method": method}, lambda s=seed, m=method: real_slice(data, s, m)
            for method in ("cg-sense", "cs"):
                name = {"part": part, "seed": seed, "method": f"{method}, best strength"}
                yield name, lambda s=seed, m=method: oracle(data, s, m)
    if part == "learn":
        for seed in arguments.seeds:
            yield (
                {"part": part, "seed": seed, "steps": arguments.steps},
                lambda s=seed: learnt(data, s, arguments.steps),
            )
    if part == "slices":
        slices = Slices(data)
        for method in ("zero-filled", "cs"):
            yield {"part": part, "method": method}, lambda m=method: {"psnr": slices.score(m)}
        for size in arguments.sizes:
            for loss, masks in (("split", 0), ("supervised", MASKS)):
                name = {"part": part, "method": loss, "slices": size, "steps": arguments.steps}
                name |= {"masks": masks} if masks else {}
                yield name, lambda n=size, k=loss: trained(slices, k, n, arguments.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["formats", "slice", "learn", "slices"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "reconstruction.jsonl")
    parser.add_argument("--steps", type=int, default=200, help="updates of a network")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="slices to learn from")
    arguments = parser.parse_args()
    if not (arguments.data / FASTMRI).exists():
        print(f"skipped: {arguments.data / FASTMRI} is not there.")
        sys.exit(0)
    arguments.results.parent.mkdir(exist_ok=True)
    kept = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    for name, work in measure(arguments):
        rows = [row for row in kept if name.items() <= row.items()]
        if not rows:
            made = work()
            rows = [{**name, **row} for row in (made if isinstance(made, list) else [made])]
            with arguments.results.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
