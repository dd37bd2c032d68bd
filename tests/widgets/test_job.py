"""Jobs report, stop and close, and say why they ended."""

from __future__ import annotations

import threading
import time

import pytest
from qtpy.QtCore import QObject

from napari_ssdenoise._pauses import pause
from napari_ssdenoise.widgets._job import Job, Reason, Stopped


class Counting:
    """Work that counts, notices its end, and can go wrong."""

    def __init__(self, steps=3, error=None, inner=False):
        self.steps, self.error, self.inner = steps, error, inner
        self.closed_in = None

    def __call__(self, stop):
        try:
            for step in range(self.steps):
                time.sleep(0.001)
                if self.inner and stop.is_set():
                    raise Stopped
                yield step
            if self.error:
                raise self.error
        finally:
            self.closed_in = threading.current_thread()


def outcome(job, qtbot):
    with qtbot.waitSignal(job.ended, timeout=20_000) as ended:
        job.start()
    return ended.args


def test_reports_arrive_in_the_event_loop_and_in_order(qtbot):
    seen = []
    job = Job(Counting())
    job.reported.connect(lambda report: seen.append((report, threading.current_thread())))
    assert outcome(job, qtbot) == [Reason.COMPLETED, None]
    assert seen == [(i, threading.main_thread()) for i in range(3)]
    assert not job.running


@pytest.mark.parametrize("inner", [False, True])
def test_cancelling_closes_the_generator_in_its_own_thread(qtbot, inner):
    work = Counting(10**9, inner=inner)
    job = Job(work)
    job.reported.connect(lambda _: job.cancel())
    assert outcome(job, qtbot) == [Reason.CANCELLED, None]
    assert work.closed_in is not threading.main_thread()


def test_work_that_reports_nothing_is_ended_at_its_next_pause(qtbot):
    def work(stop):
        stop.set()
        pause()
        yield "too late"

    seen = []
    job = Job(work)
    job.reported.connect(seen.append)
    assert outcome(job, qtbot) == [Reason.CANCELLED, None]
    assert not seen


def test_errors_are_handed_on(qtbot):
    error = ValueError("no")
    work = Counting(error=error)
    assert outcome(Job(work), qtbot) == [Reason.FAILED, error]
    assert work.closed_in is not None


def test_unexpected_errors_are_logged(qtbot, caplog):
    outcome(Job(Counting(error=KeyError("odd"))), qtbot)
    assert "unexpectedly" in caplog.text


def test_destroying_the_owner_stops_the_work(qtbot):
    owner, work = QObject(), Counting(10**9)
    job = Job(work, owner)
    with qtbot.waitSignal(job.reported, timeout=20_000):
        job.start()
    owner.deleteLater()
    qtbot.waitUntil(lambda: work.closed_in is not None, timeout=20_000)
