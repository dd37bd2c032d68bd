"""Go through many images, and note what became of each: one that fails does not stop the rest."""

from __future__ import annotations

import csv
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ssdenoise._errors import explain, is_input_error

if TYPE_CHECKING:
    from napari_ssdenoise.batch._finished import Finished
    from napari_ssdenoise.batch._names import Job

logger = logging.getLogger(__name__)

Result = dict[str, Any]
COLUMNS = ("image", "status", "seconds", "message", "output")


class Status(Enum):
    """What became of an image."""

    DONE = "done"
    BEFORE = "done before"
    SKIPPED = "existed already"
    FAILED = "failed"


@dataclass(frozen=True)
class Begun:
    """An image that comes next."""

    number: int


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes
    ----------
    number
        In the order of the batch.
    status, seconds
        How it ended, and how long it took.
    message
        What was wrong.
    result
        What else is to be said; ``"error"`` or ``"skipped"`` is among it if that is what happened.
    """

    number: int
    status: Status
    seconds: float = 0.0
    message: str = ""
    result: Result = field(default_factory=dict)


class Batch:
    """Images to denoise, and what became of them.

    Parameters
    ----------
    jobs
        In the order in which they are begun.
    finished
        What an earlier, stopped run of the same task has made.
    """

    def __init__(self, jobs: Sequence[Job], finished: Finished) -> None:
        self.jobs = jobs
        self.finished = finished
        self.outcomes: dict[int, Outcome] = {}

    def run(
        self, denoise: Callable[[Job], Generator[Any, None, Result]], stopped: Callable[[], bool]
    ) -> Generator[Any]:
        """Denoise one image after the other.

        Parameters
        ----------
        denoise
            Makes one output; what it yields is passed on.
        stopped
            Whether somebody wants to stop: errors then end the run. All others are noted, and the next image comes.

        Yields
        ------
        Begun, then what ``denoise`` yields, then Outcome
            For each image.
        """
        self.finished.load()
        for number, job in enumerate(self.jobs):
            yield Begun(number)
            outcome = self.before(number)
            if outcome is None:
                started = time.perf_counter()
                try:
                    result = yield from denoise(job)
                except Exception as error:
                    if stopped():
                        raise
                    outcome = self.fail(number, error, time.perf_counter() - started)
                else:
                    outcome = self.succeed(number, result, time.perf_counter() - started)
            yield outcome
        self.close()

    def before(self, number: int) -> Outcome | None:
        """Note an image that was done before, if it was."""
        found = self.finished.get(self.jobs[number])
        if found is None:
            return None
        return self._note(Outcome(number, Status.SKIPPED if "skipped" in found else Status.BEFORE, result=found))

    def succeed(self, number: int, result: Result, seconds: float = 0.0) -> Outcome:
        """Note an image whose output is there; it exists already if the result says ``"skipped"``."""
        self.finished.add(self.jobs[number], result)
        status = Status.SKIPPED if "skipped" in result else Status.DONE
        return self._note(Outcome(number, status, seconds, result=result))

    def fail(self, number: int, error: Exception, seconds: float = 0.0) -> Outcome:
        """Note what was wrong with an image."""
        text = explain(error)
        if not is_input_error(error):
            logger.error("%s failed unexpectedly", self.jobs[number].source, exc_info=error)
            text = f"unexpected error: {type(error).__name__}: {text}"
        result = {"input": str(self.jobs[number].source), "error": text}
        return self._note(Outcome(number, Status.FAILED, seconds, text, result))

    def close(self) -> None:
        """Forget what was done, if nothing is left to do."""
        if len(self.outcomes) == len(self.jobs) and not self.count[Status.FAILED]:
            self.finished.remove()

    @property
    def count(self) -> Counter[Status]:
        """How many images ended in which way."""
        return Counter(outcome.status for outcome in self.outcomes.values())

    @property
    def results(self) -> list[Result]:
        """What is to be said about each image that has ended, in order."""
        return [self.outcomes[number].result for number in sorted(self.outcomes)]

    def summary(self) -> str:
        """Say how many images ended in which way."""
        count = self.count
        said = [f"{count[Status.DONE] + count[Status.BEFORE]} of {len(self.jobs)} images denoised"]
        said += [f"{count[Status.SKIPPED]} existed already"] if count[Status.SKIPPED] else []
        said += [f"{count[Status.FAILED]} failed"] if count[Status.FAILED] else []
        return ", ".join(said) + "."

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return a line for each image, in `COLUMNS`: those that were not begun are "not begun"."""
        rows = []
        for number, job in enumerate(self.jobs):
            name = job.volume.name if job.volume is not None else str(job.source)
            ended = self.outcomes.get(number)
            if ended is None:
                rows.append((name, "not done", "", "", ""))
            else:
                output = "" if ended.status is Status.FAILED else str(job.output)
                rows.append((name, ended.status.value, f"{ended.seconds:.1f}", ended.message, output))
        return rows

    def write_table(self, path: Path) -> None:
        """Write `rows` as a CSV file.

        Raises
        ------
        OSError
            If it cannot be written; a file that was there is as it was.
        """
        from napari_ssdenoise.io._whole import written_whole

        with written_whole(path) as partial, partial.open("w", encoding="utf8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self.rows())

    def _note(self, outcome: Outcome) -> Outcome:
        self.outcomes[outcome.number] = outcome
        return outcome
