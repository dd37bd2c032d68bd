"""Run work in another thread: what it reports arrives in the event loop, and it ends for certain, with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from enum import Enum
from threading import Event
from typing import Any

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_ssdenoise._errors import is_input_error
from napari_ssdenoise._pauses import pausing

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
            with pausing(self._check):
                self.outcome = (self._consume(), None)
        except Stopped:
            self.outcome = (Reason.CANCELLED, None)
        except Exception as error:
            self.outcome = (Reason.FAILED, error)
        finally:
            self._reports.close()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

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


class Newest(QObject):
    """Looks things up in another thread, one after another; only what was asked for last is shown."""

    failed = Signal(object)  # Exception
    ended = Signal()  # one of them

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.job: Job | None = None
        self._asked: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self._running = self._asked
        self._found: Any = None

    def ask(self, look: Callable[[], Any], show: Callable[[Any], None]) -> None:
        """Have ``show`` called in the event loop with what ``look`` returns, unless something else is asked for."""
        self._asked = (look, show)
        if self.job is None:
            self._begin()
        else:
            self.job.cancel()

    def forget(self) -> None:
        """Show nothing of what was asked for."""
        self._asked = None
        if self.job is not None:
            self.job.cancel()

    def _begin(self) -> None:
        self._running = self._asked
        self.job = Job(self._look, self)
        self.job.reported.connect(self._take)
        self.job.ended.connect(self._end)
        self.job.start()

    def _look(self, stop: Event) -> Generator[Any, None, None]:
        if self._running is not None and not stop.is_set():
            yield self._running[0]()

    def _take(self, found: Any) -> None:
        self._found = found

    def _end(self, reason: Reason, error: Exception | None) -> None:
        asked, running, found = self._asked, self._running, self._found
        self.job = self._running = self._found = None
        if asked is not running:
            if asked is not None:
                self._begin()
        else:
            self._asked = None
            if error is not None:
                self.failed.emit(error)
            elif running is not None and reason is Reason.COMPLETED:
                running[1](found)
        self.ended.emit()
