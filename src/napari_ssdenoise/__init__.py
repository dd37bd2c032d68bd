"""Self-supervised denoising of scientific images.

Public names load on first use, so that importing the package is quick and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public name -> the module it lives in. ``__init__.pyi`` says the same to type checkers; a test keeps them equal.
_HOME = {
    "BlindSpot": "algorithms.blindspot",
    "DataStudier": "study.data",
    "DataStudy": "study.data",
    "DataStudySettings": "study.data",
    "Diagnosis": "diagnosis",
    "Interpolation": "algorithms.interpolation",
    "KSpace": "io.kspace",
    "Magnitude": "magnitude",
    "MetaSuperResolution": "algorithms.mzsr",
    "Neighbor2Neighbor": "algorithms.neighbor2neighbor",
    "NetworkStudy": "study.networks",
    "Noise2Noise": "algorithms.noise2noise",
    "Noise2Void": "algorithms.noise2void",
    "Reconstruction": "reconstruction",
    "ReconstructionModel": "reconstruction",
    "ReconstructionTrainer": "reconstruction",
    "Reconstructor": "reconstruction",
    "Scheduler": "engine.distributed",
    "TrainStep": "engine.trainer",
    "TrainedModel": "model",
    "Trainer": "engine.trainer",
    "Upscaler": "superres",
    "Volume": "volume",
    "ZeroShotNoise2Noise": "algorithms.zs_n2n",
    "ZeroShotSuperResolution": "algorithms.zssr",
    "assess": "quality",
    "diagnose": "diagnosis",
    "estimate_magnitude_noise": "magnitude",
    "get_algorithm": "algorithms",
    "linear_theory": "study.linear",
    "list_algorithms": "algorithms",
    "load_sample": "samples",
    "open_kspace": "io.kspace",
    "open_volume": "volume",
    "psnr": "metrics",
    "reconstruct": "reconstruction",
    "ssim": "metrics",
    "study_data": "study.data",
    "study_networks": "study.networks",
    "train": "engine.trainer",
    "train_reconstruction": "reconstruction",
    "upscale": "superres",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("napari-ssdenoise")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
