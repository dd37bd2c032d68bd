"""Plots of a study: risk against the number of images, with the fitted curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.study.fit import RiskFit, fit_risk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ssdenoise.study.data import DataStudy
    from napari_ssdenoise.study.linear import LinearStudy
    from napari_ssdenoise.study.networks import Training

COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7")
BEYOND = 4.0  # how far the curves are drawn past the largest size


def plot_data(study: DataStudy, path: Path) -> None:
    """Draw the risk of one's own images, and what more would give; the suffix decides PNG or SVG."""
    figure, axes = _axes("images to learn from", "risk (squared intensity)")
    sizes, risks = np.array([t.size for t in study.trainings]), np.array([t.risk for t in study.trainings])
    _curve(axes, study.fit, sizes, risks, COLOURS[1], "measured on held-out images")
    axes.axhline(study.fit.floor.value, color=COLOURS[0], linestyle=":", label="endlessly many images")
    axes.legend(frameon=False)
    _save(figure, path)


def plot_networks(trainings: Sequence[Training], path: Path) -> None:
    """Draw the risk of networks for each noise of the targets."""
    figure, axes = _axes("training images", "risk (mean squared error)")
    for colour, level in zip(COLOURS, sorted({t.target_noise for t in trainings}), strict=False):
        chosen = [t for t in trainings if t.target_noise == level]
        sizes, risks = np.array([t.size for t in chosen]), np.array([t.risk for t in chosen])
        label = "clean targets" if level == 0 else f"targets with noise {255 * level:.0f}/255"
        _curve(axes, fit_risk(sizes, risks) if len(set(sizes)) > 2 else None, sizes, risks, colour, label)
    axes.legend(frameon=False)
    _save(figure, path)


def plot_theory(study: LinearStudy, path: Path) -> None:
    """Draw simulated excess risks as marks and closed forms as lines: early-stopped, and converged."""
    figure, axes = _axes("training pairs", "risk above the best possible")
    for colour, level in zip(COLOURS, sorted({p.target_noise for p in study.points}), strict=False):
        curve, best = study.curve(level), study.theory.best_risk
        sizes = np.array([p.size for p in curve])
        fine = np.geomspace(sizes.min(), sizes.max(), 300)
        for kind, mark, theory in (
            ("stopped", "o", study.theory.stopped_risk),
            ("converged", "s", study.theory.converged_risk),
        ):
            expected = theory(fine, level) - best
            axes.plot(fine, np.where(np.isfinite(expected), expected, np.nan), color=colour, linewidth=1)
            axes.plot(
                sizes, [getattr(p, kind) - best for p in curve], mark, color=colour, markersize=4,
                markerfacecolor="white" if kind == "converged" else colour,
                label=f"target noise {level:g}" if kind == "stopped" else None,
            )  # fmt: skip
    axes.legend(frameon=False, title="filled: stopped early, open: converged")
    _save(figure, path)


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curve(axes: Any, fit: RiskFit | None, sizes: Any, risks: Any, colour: str, label: str) -> None:
    axes.plot(sizes, risks, "o", color=colour, markersize=4, label=label)
    if fit is not None:
        fine = np.geomspace(sizes.min(), BEYOND * sizes.max(), 60)
        middle, low, high = fit.curve(fine)
        axes.plot(fine, middle, color=colour, linewidth=1)
        axes.fill_between(fine, low, high, color=colour, alpha=0.15, linewidth=0)


def _save(figure: Any, path: Path) -> None:
    with written_whole(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=150)
