"""Denoise many images, one after the other or several at a time on a cluster; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import click

from napari_ssdenoise import batch
from napari_ssdenoise._errors import explain, is_input_error
from napari_ssdenoise.batch import Result, Status
from napari_ssdenoise.cli._program import Stopped

if TYPE_CHECKING:
    from napari_ssdenoise.batch import Finished, Job
    from napari_ssdenoise.cli._report import Reporter
    from napari_ssdenoise.engine.distributed import Scheduler

# Images at the same time: one for each worker, but no more than this program can open and finish beside each other.
MOST_AT_ONCE = 16

Denoise = Callable[["Job", "Reporter"], Result]


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Scheduler | None]:
    """Connect to a cluster, if one is asked for; it is left, and local workers end, at the end.

    Raises
    ------
    ValueError
        If dask.distributed is not installed.
    """
    if workers and address != "local":
        raise click.UsageError("--workers goes with --scheduler local. Other clusters have the workers they have.")
    if address is None:
        yield None
        return
    from napari_ssdenoise.engine.distributed import Scheduler

    try:
        scheduler = Scheduler(address, workers=workers)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    with scheduler:
        yield scheduler


class Batch(batch.Batch):
    """Many images to denoise from the command line, one after the other or together.

    Parameters
    ----------
    jobs
        In the order in which they are begun.
    denoise
        Makes one output.
    finished
        What an earlier, stopped run of the same command has made.
    """

    def __init__(self, jobs: Sequence[Job], denoise: Denoise, finished: Finished, reporter: Reporter) -> None:
        super().__init__(jobs, finished)
        self._denoise = denoise
        self._reporter = reporter

    def denoise(self, scheduler: Scheduler | None = None) -> Result:
        """Denoise all, several at a time if there is a cluster; return what is to be said about them."""
        self.finished.load()
        at_once = min(MOST_AT_ONCE, scheduler.workers) if scheduler else 1
        if scheduler and at_once > 1:
            self._together(scheduler, at_once)
        else:
            for number in self._left():
                self._end(number, partial(self._denoise, self.jobs[number], self._reporter))
        return self._summary()

    def _left(self) -> Iterator[int]:
        """Announce one image after the other, and pass over those that are done."""
        for number, job in enumerate(self.jobs):
            self._reporter.say(f"[{number + 1}/{len(self.jobs)}] {job.source}")
            if self.before(number):
                self._reporter.say(f"done before: {job.output}")
            else:
                yield number

    def _end(self, number: int, result: Callable[[], Result]) -> None:
        """Keep the result of an image, or what was wrong with it."""
        try:
            self.succeed(number, result())
        except Exception as error:
            if not is_input_error(error):
                raise
            self._reporter.fail(f"{self.jobs[number].source}: {explain(error)}")
            self.fail(number, error)

    def _together(self, scheduler: Scheduler, at_once: int) -> None:
        """Denoise several images at a time: small ones, too, keep all workers busy then."""
        left = self._left()
        running: dict[Future[Result], int] = {}
        with ThreadPoolExecutor(at_once, thread_name_prefix="ssdenoise") as pool, self._reporter.together():
            try:
                while True:
                    for number in islice(left, at_once - len(running)):
                        job = self.jobs[number]
                        running[pool.submit(self._denoise, job, self._reporter.named(job.source.name))] = number
                    if not running:
                        return
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        self._end(running.pop(done), done.result)
            except KeyboardInterrupt as error:
                scheduler.stop()
                for ended in wait(running).done:  # those that were just being completed
                    if not ended.exception():
                        self._end(running[ended], ended.result)
                count = len(self.outcomes) - self.count[Status.FAILED]
                raise Stopped(
                    f"{count} of {len(self.jobs)} images are done, and what is done of the next ones is kept. "
                    "The same command goes on from there."
                ) from error
            except BaseException:
                scheduler.stop()
                raise

    def _summary(self) -> Result:
        self._reporter.say(self.summary())
        self.close()
        failed, skipped = self.count[Status.FAILED], self.count[Status.SKIPPED]
        folder = str(self.finished.path.parent)
        return {"output": folder, "failed": failed, "skipped": skipped, "results": self.results}
