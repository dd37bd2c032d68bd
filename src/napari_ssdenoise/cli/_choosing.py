"""Let a diagnosis choose the algorithm, and say why in a few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.algorithms import get_algorithm

if TYPE_CHECKING:
    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.cli._report import Reporter
    from napari_ssdenoise.volume import Volume

AUTO = "auto"
REASONS = 2


def diagnosed(
    volume: Volume,
    target: Volume | None,
    configured: Callable[[str, Mapping[str, Any]], Algorithm],
    reporter: Reporter,
) -> tuple[Algorithm, dict[str, Any]]:
    """Look at an image and choose how to denoise it.

    Parameters
    ----------
    volume, target
        The image, and a second noisy one of the same scene if there is one.
    configured
        Makes the algorithm from its key and the recommended settings, with what the command line says.

    Returns
    -------
    algorithm
    about
        What the result of the command is to say: the algorithm, its settings and the reasons.
    """
    from napari_ssdenoise.diagnosis import diagnose, left_open

    report = diagnose(volume, target=target)
    algorithm = configured(report.algorithm, left_open(report.settings))
    reporter.say(f"chosen: {describe(report.algorithm, report.settings)}")
    for reason in list(report.reasons)[:REASONS]:
        reporter.say(f"  {reason}")
    about = {"algorithm": report.algorithm, "settings": dict(report.settings), "reasons": list(report.reasons)}
    return algorithm, about


def describe(key: str, values: Mapping[str, Any]) -> str:
    """Name an algorithm and its settings as they would be given: ``Noise2Void: --algorithm n2v --n2v2``."""
    flags = [f"--algorithm {key}"]
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{flag}")
        else:
            shown = AUTO if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
            flags.append(f"--{flag} {shown}")
    return f"{get_algorithm(key).title}: {' '.join(flags)}"


def wants_target(algorithm: Algorithm) -> bool:
    """Tell whether an algorithm, as it is set, learns from a second image."""
    return getattr(algorithm, "pairs", "") == "target"


def require_outputs(algorithm: Algorithm, names: Sequence[str], flag: str) -> None:
    """Refuse before any work what the algorithm cannot give.

    Raises
    ------
    ValueError
        With the algorithms that can.
    """
    from napari_ssdenoise.algorithms import list_algorithms

    missing = [name for name in names if name not in algorithm.outputs]
    if missing:
        able = [key for key, kind in list_algorithms().items() if set(names) <= set(kind.outputs)]
        advice = f"Leave {flag} out, or train with --algorithm {' or '.join(able)}." if able else f"Leave {flag} out."
        raise ValueError(f"{algorithm.title} gives no {', '.join(missing)}. {advice}")
