"""Judge a trained model in the background: whatever people start goes first."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_ssdenoise.widgets._checks import Assessed, Assessing
from napari_ssdenoise.widgets._job import Job, Reason
from napari_ssdenoise.widgets._reports import ReportSection, message_html, quality_html, quality_summary


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
        self._wanted: Assessing | None = None
        self._running: Assessing | None = None
        self._paused = False

    def begin(self, work: Assessing) -> None:
        """Judge a model on the image it was trained on, instead of what was judged before."""
        self.forget()
        self._wanted = work
        self.section.show_report("checking…", "", unfold=False)
        self.resume()

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

    def _take(self, report: Any) -> None:
        if self._running is self._wanted and isinstance(report, Assessed):
            found = report.report
            self.section.show_report(quality_summary(found), quality_html(found), unfold=bool(found.warnings))

    def _end(self, reason: Reason, error: Exception | None) -> None:
        self.job = None
        if self._running is self._wanted and reason is not Reason.CANCELLED:
            self._wanted = None
            if error is not None:
                self.section.show_report("could not be checked", message_html(str(error)), unfold=False)
        if not self._paused:
            self.resume()
        self.ended.emit()
