"""Whether images are enough: the job that finds out, and what shows its answer."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from html import escape
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QWidget

from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._plots import Plot
from napari_ssdenoise.widgets._stopping import guarded, interrupting, load_torch
from napari_ssdenoise.widgets._work import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.recipe_mri import StudyRecipe
    from napari_ssdenoise.study.data import DataStudy, DataTraining

BEYOND = 4.0  # how far the curve is drawn past the images at hand


@dataclass(frozen=True)
class Studied:
    """The answer."""

    study: DataStudy


@dataclass(frozen=True)
class Source:
    """A layer's image, and the file that it came from."""

    volume: Volume
    path: Path | None


@dataclass
class Studying:
    """Study whether images are enough.

    Parameters
    ----------
    images, target
        The images, and second views of them.
    seeds, steps, device
        Of the trainings.
    """

    images: Source
    target: Source | None = None
    seeds: int = 3
    steps: int = 300
    device: str = "auto"

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, `StudyStep` and, at the end, `Studied`."""
        yield Stage("Loading PyTorch…")
        load_torch(stop)
        from napari_ssdenoise.study.data import DataStudier, DataStudySettings

        yield Stage("Reading the images…")
        with interrupting(stop):
            images, target = (source and guarded(source.volume, stop) for source in (self.images, self.target))
            settings = DataStudySettings(seeds=self.seeds, steps=self.steps)
            studier = DataStudier(images, target=target, settings=settings, device=self.device)
            yield from studier
        yield Stage("Fitting the curve…")
        study = studier.result
        study.describe()  # the fits, which are kept
        yield Studied(study)

    def recipe(self) -> StudyRecipe:
        """Return how to do it again; this reads parts of the images."""
        from napari_ssdenoise.recipe_mri import StudyRecipe
        from napari_ssdenoise.study.data import DataStudySettings

        target = None if self.target is None else (self.target.volume, self.target.path)
        settings = DataStudySettings(seeds=self.seeds, steps=self.steps)
        return StudyRecipe.of(self.images.volume, self.images.path, target, settings, self.device)


def save_study(study: DataStudy, path: Path) -> None:
    """Write the numbers (.json) or the plot (.png, .svg)."""
    import json

    from napari_ssdenoise.study.plot import plot_data

    if path.suffix.lower() in (".png", ".svg"):
        plot_data(study, path)
        return
    with written_whole(path) as partial:
        partial.write_text(json.dumps(study.to_json(), indent=1) + "\n", encoding="utf8")


def table_html(study: DataStudy) -> str:
    """Write the error that is left for each number of images, and how far the curve is from the best."""
    rows = [(str(n), f"{risk**0.5:.4g}", f"{study.fit.gain_db(n).value:.2f} dB") for n, risk, _ in study.table]
    head = ("Images", "Error that is left", "To gain by more")
    lines = ["".join(f"<td style='padding-right:14px'>{escape(cell)}</td>" for cell in row) for row in (head, *rows)]
    noise = f"{study.noise**0.5:.4g}"
    return (
        f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
        f"<p>Errors are root mean squares in the units of the image, of which the noise is {noise}.</p>"
    )


class RiskPlot(Plot):
    """The error against the number of images, and the curve with its 90 % band."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(210, parent)
        self.points: list[tuple[int, float]] = []
        self.study: DataStudy | None = None

    def set_up(self, plot: Any) -> None:
        plot.setMouseEnabled(False, False)
        plot.setLogMode(x=True, y=False)
        plot.setLabel("bottom", "images to learn from")
        plot.setLabel("left", "error that is left")
        plot.addLegend(offset=(-4, 4))

    def clear(self) -> None:
        """Begin anew."""
        self.points, self.study = [], None
        self.setVisible(False)

    def add(self, training: DataTraining) -> None:
        """Show one more measurement."""
        self.points.append((training.size, training.risk))
        self.recolor()
        self.setVisible(True)

    def show_study(self, study: DataStudy) -> None:
        """Show all measurements, the curve through them, and what endlessly many images would leave."""
        self.points, self.study = [(t.size, t.risk) for t in study.trainings], study
        self.recolor()
        self.setVisible(True)

    def recolor(self) -> None:
        self._draw_points()
        if self.study is not None:
            self._draw_curve(self.study)

    def _draw_curve(self, study: DataStudy) -> None:
        import pyqtgraph

        sizes = np.geomspace(1, BEYOND * study.images, 60)
        middle, low, high = (np.sqrt(risk) for risk in study.fit.curve(sizes))
        band, unseen = pyqtgraph.mkColor(self.colors.curve), pyqtgraph.mkPen((0, 0, 0, 0))
        band.setAlpha(60)
        ends = [self._plot.plot(sizes, end, pen=unseen) for end in (low, high)]
        self._plot.addItem(pyqtgraph.FillBetweenItem(*ends, brush=band))
        self._plot.plot(sizes, middle, pen=pyqtgraph.mkPen(self.colors.curve, width=2), name="fit, with 90 % band")
        floor = study.fit.floor.value**0.5
        pen = pyqtgraph.mkPen(self.colors.text, style=pyqtgraph.QtCore.Qt.PenStyle.DotLine)
        self._plot.plot(sizes[[0, -1]], [floor, floor], pen=pen, name="endlessly many")
        self._frame([*(risk**0.5 for _, risk in self.points), *middle])
        self._mark([*(n for n, _, _ in study.table), 2 * study.images, round(BEYOND * study.images)])

    def _draw_points(self) -> None:
        plot = self.painted()
        import pyqtgraph

        plot.clear()
        sizes, errors = [n for n, _ in self.points], [risk**0.5 for _, risk in self.points]
        brush = pyqtgraph.mkBrush(self.colors.points)
        plot.plot(sizes, errors, pen=None, symbol="o", symbolSize=6, symbolPen=None, symbolBrush=brush, name="measured")
        self._frame(errors)
        self._mark(sorted(set(sizes)))

    def _mark(self, sizes: list[int]) -> None:
        """Write numbers of images below the axis."""
        self._plot.getAxis("bottom").setTicks([[(np.log10(n), str(n)) for n in sizes], []])

    def _frame(self, errors: list[float]) -> None:
        """Show all of the measurements and the curve; the band may go beyond."""
        low, high = min(errors), max(errors)
        margin = max(0.15 * (high - low), 0.01 * high)
        self._plot.setYRange(low - margin, high + margin, padding=0)
