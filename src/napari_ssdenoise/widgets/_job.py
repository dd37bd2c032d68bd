"""Run a generator in another thread: its reports arrive in the event loop, and it ends for certain, with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from enum import Enum
from threading import Event
from typing import Any

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_ssdenoise._errors import is_input_error

logger = logging.getLogger(__name__)
Work = Callable[[Event], Generator[Any, None, None]]


class Reason(Enum):
    """Why a job ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Stopped(Exception):
    """Raised inside a job's work when it has been asked to stop."""


class _Signals(WorkerBaseSignals):
    reported = Signal(object)


class _Worker(WorkerBase):  # type: ignore[type-arg,misc]
    """Step through a generator, and close it in the same thread whatever happens."""

    def __init__(self, work: Work, stop: Event) -> None:
        super().__init__(SignalsClass=_Signals)
        self._reports = work(stop)
        self._stop = stop
        self.outcome: tuple[Reason, Exception | None] = (Reason.CANCELLED, None)

    def quit(self) -> None:
        """Stop as soon as possible; napari calls this when it exits."""
        self._stop.set()
        super().quit()

    def work(self) -> None:
        try:
            self.outcome = (self._consume(), None)
        except Stopped:
            self.outcome = (Reason.CANCELLED, None)
        except Exception as error:
            self.outcome = (Reason.FAILED, error)
        finally:
            self._reports.close()

    def _consume(self) -> Reason:
        for report in self._reports:
            self.reported.emit(report)
            if self._stop.is_set():
                return Reason.CANCELLED
        return Reason.COMPLETED


class Job(QObject):
    """One piece of work in another thread.

    Parameters
    ----------
    work
        Makes the generator; it is given an event that is set when it should stop, for work that is long between two
        reports.
    parent
        The job stops if this is destroyed.
    """

    reported = Signal(object)
    ended = Signal(object, object)  # Reason, Exception | None

    def __init__(self, work: Work, parent: QObject | None = None) -> None:
        super().__init__(parent)
        stop = Event()
        self._stop = stop
        self._worker = _Worker(work, stop)
        self._worker.reported.connect(self._report)
        self._worker.finished.connect(self._finish)
        self.running = False
        # Plain functions, for when this object no longer exists.
        self.destroyed.connect(lambda: stop.set())
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.cancel)

    def start(self) -> None:
        """Begin; both signals come from the event loop."""
        self.running = True
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; `ended` follows within a moment."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether it has been asked to stop."""
        return self._stop.is_set()

    def _report(self, report: object) -> None:
        self.reported.emit(report)

    def _finish(self) -> None:
        self.running = False
        reason, error = self._worker.outcome
        if error is not None and not is_input_error(error):
            logger.error("a job failed unexpectedly", exc_info=error)
        self.ended.emit(reason, error)
        self.deleteLater()
