"""What many images share: names, what is done already, and what became of each."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_ssdenoise.batch import Batch, Begun, Finished, Job, Status, images_in, path_for, plan_jobs
from napari_ssdenoise.io import write_volume
from napari_ssdenoise.volume import Volume


def image(level: float = 0.0) -> Volume:
    return Volume(np.full((8, 8), level, np.float32), "YX", name="layer")


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    sources = [write_volume(tmp_path / f"{name}.npy", image()) for name in "abc"]
    return plan_jobs(sources, tmp_path / "out", folder=True)


def copying(failing: str = "", error: Exception | None = None) -> Any:
    def denoise(job: Job) -> Any:
        yield job.source.name
        if job.source.name == failing and error is not None:
            raise error
        job.output.parent.mkdir(exist_ok=True)
        write_volume(job.output, image(), overwrite=True)
        return {"input": str(job.source)}

    return denoise


def test_one_that_fails_does_not_stop_the_rest_and_the_same_again_goes_on(jobs, tmp_path, caplog):
    batch = Batch(jobs, Finished(tmp_path / "out", {"task": 1}))
    with caplog.at_level(logging.CRITICAL):
        events = list(batch.run(copying("b.npy", KeyError("a mistake of ours")), lambda: False))
    assert [e.number for e in events if isinstance(e, Begun)] == [0, 1, 2]
    assert [batch.outcomes[i].status for i in range(3)] == [Status.DONE, Status.FAILED, Status.DONE]
    assert "unexpected error: KeyError" in batch.outcomes[1].message
    assert batch.summary() == "2 of 3 images denoised, 1 failed."
    again = Batch(jobs, Finished(tmp_path / "out", {"task": 1}))
    begun = [e for e in again.run(copying(), lambda: False) if isinstance(e, str)]
    assert begun == ["b.npy"]
    assert again.summary() == "3 of 3 images denoised."
    assert not again.finished.path.exists()  # nothing is left to do


def test_another_task_or_a_changed_image_begins_anew(jobs, tmp_path):
    list(Batch(jobs, Finished(tmp_path / "out", 1)).run(copying("c.npy", ValueError("x")), lambda: False))
    other = Batch(jobs, Finished(tmp_path / "out", 2))
    assert [e for e in other.run(copying("c.npy", ValueError("x")), lambda: False) if isinstance(e, str)] == [
        "a.npy",
        "b.npy",
        "c.npy",
    ]
    write_volume(jobs[0].source, image(1), overwrite=True)
    again = Batch(jobs, Finished(tmp_path / "out", 2))
    assert [e for e in again.run(copying(), lambda: False) if isinstance(e, str)] == ["a.npy", "c.npy"]


def test_an_error_after_a_stop_ends_the_run(jobs, tmp_path):
    batch = Batch(jobs, Finished(tmp_path / "out", 1))
    with pytest.raises(ValueError, match="cut short"):
        list(batch.run(copying("b.npy", ValueError("cut short")), lambda: True))
    assert batch.count == {Status.DONE: 1}
    assert [row[1] for row in batch.rows()] == ["done", "not done", "not done"]


def test_open_images_are_known_by_what_they_hold(tmp_path):
    (job,) = plan_jobs([path_for("cell 0.5/a")], tmp_path / "out", folder=True)
    assert job.output.name == "cell 0.5_a.denoised.tif"
    job = replace(job, volume=image(1))
    finished = Finished(tmp_path / "out", 1)
    list(Batch([job], finished).run(copying(), lambda: False))
    finished.add(job, {"input": "layer"})
    finished.load()
    assert finished.get(job)
    assert finished.get(replace(job, volume=image(2))) is None


def test_the_table_is_a_csv_file(jobs, tmp_path):
    batch = Batch(jobs, Finished(tmp_path / "out", 1))
    list(batch.run(copying("a.npy", ValueError('broken, "quite"')), lambda: False))
    batch.write_table(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf8").splitlines()))
    assert [row["status"] for row in rows] == ["failed", "done", "done"]
    assert rows[0]["message"] == 'broken, "quite"'
    assert rows[1]["output"] == str(jobs[1].output)
    with pytest.raises(OSError, match=r"."):
        batch.write_table(tmp_path / "nowhere" / "table.csv")


def test_the_images_of_a_folder_are_found_without_results(tmp_path):
    for name in ("b.tif", "a.NPY", "notes.txt", "a.denoised.tif", ".hidden.tif"):
        (tmp_path / name).touch()
    write_volume(tmp_path / "c.ome.zarr", image())
    (tmp_path / "empty").mkdir()
    assert [path.name for path in images_in(tmp_path)] == ["a.NPY", "b.tif", "c.ome.zarr"]
    assert images_in(tmp_path / "c.ome.zarr") == [tmp_path / "c.ome.zarr"]
