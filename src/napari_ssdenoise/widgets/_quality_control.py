"""Judge a trained model in the background: whatever people start goes first."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_ssdenoise.widgets._checks import Assessed, Assessing, Compared, Comparing
from napari_ssdenoise.widgets._job import Job, Reason
from napari_ssdenoise.widgets._reports import (
    ReportSection,
    differences_html,
    message_html,
    quality_html,
    quality_summary,
)


class QualityControl(QObject):
    """Computes the quality report of the last training, and shows it when it is there.

    Parameters
    ----------
    section
        Where to show it.
    """

    ended = Signal()

    def __init__(self, section: ReportSection, parent: QObject) -> None:
        super().__init__(parent)
        self.section = section
        self.job: Job | None = None
        self._wanted: Assessing | Comparing | None = None
        self._running: Assessing | Comparing | None = None
        self._paused = False

    def begin(self, work: Assessing | Comparing) -> None:
        """Look at a model and an image, instead of those before."""
        self.forget()
        self._wanted = work
        self.announce()
        self.resume()

    def announce(self) -> None:
        """Say that there will be something to see."""
        self.section.show_report("checking…", "", unfold=False)

    def pause(self) -> None:
        """Make room for something else."""
        self._paused = True
        if self.job is not None:
            self.job.cancel()

    def resume(self) -> None:
        """Go on (from the start) with what was wanted, if there is something left."""
        self._paused = False
        if self._wanted is None or self.job is not None:
            return
        self._running = self._wanted
        self.job = Job(self._running.reports, self)
        self.job.reported.connect(self._take)
        self.job.ended.connect(self._end)
        self.job.start()

    def forget(self) -> None:
        """Take the report away, and want none."""
        self._wanted = None
        if self.job is not None:
            self.job.cancel()
        self.section.clear()

    def show(self, report: Any) -> None:
        """Show what the work reports."""
        if isinstance(report, Assessed):
            found = report.report
            self.section.show_report(quality_summary(found), quality_html(found), unfold=bool(found.warnings))

    def _take(self, report: Any) -> None:
        if self._running is self._wanted:
            self.show(report)

    def _end(self, reason: Reason, error: Exception | None) -> None:
        self.job = None
        if self._running is self._wanted and reason is not Reason.CANCELLED:
            self._wanted = None
            if error is not None:
                self.section.show_report("could not be checked", message_html(str(error)), unfold=False)
        if not self._paused:
            self.resume()
        self.ended.emit()


class FitControl(QualityControl):
    """Tells whether the chosen image is like those that the model was trained on; silent if it is."""

    def announce(self) -> None:
        """Most images are: nothing to announce."""

    def show(self, report: Any) -> None:
        """Show the differences."""
        if isinstance(report, Compared):
            found = report.differences
            if found:
                self.section.show_report("unlike the training", differences_html(found), unfold=True)
            else:
                self.section.clear()
