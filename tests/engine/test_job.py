"""One output: its ledger, its lock, and what is kept when something goes wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_ssdenoise import open_volume
from napari_ssdenoise.engine import plan as planning
from napari_ssdenoise.engine import stream
from napari_ssdenoise.engine.job import Ledger, Place
from napari_ssdenoise.engine.outputs import lock_output
from napari_ssdenoise.io import UnreadableError, _pyramid, _writer
from napari_ssdenoise.io._lazy import LazyArray
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

HOW: dict[str, Any] = {"memory": "300 MB", "device": "cpu", "precision": "float32", "dtype": "float32"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small images flow, into several blocks and resolutions."""
    monkeypatch.setattr(stream, "OUTPUT_CHUNK", {"Z": 8, "Y": 16, "X": 16, "T": 1, "C": 1})
    monkeypatch.setattr(_pyramid, "SMALLEST", 4)
    monkeypatch.setattr(_pyramid, "SMALLEST_CHUNK", 8)
    monkeypatch.setattr(planning._Planner, "_choices", lambda self: iter([(0, self.predictor.stride[0])]))


@pytest.fixture
def model(make_model: Any) -> TrainedModel:
    made: TrainedModel = make_model("ZYX", depth=1)
    return made


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Return a Zarr image of eight chunks."""
    image = np.random.default_rng(0).poisson(100, (64, 20, 18)).astype(np.uint16)
    array = zarr.create_array(tmp_path / "noisy.zarr", shape=image.shape, chunks=(8, 20, 18), dtype=image.dtype)
    array[:] = image
    return tmp_path / "noisy.zarr"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_ledger_remembers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.ledger", "task")
    assert not ledger.load()
    ledger.start()
    ledger.add("one")
    ledger.add("two")
    again = Ledger(tmp_path / "a.ledger", "task")
    assert again.load()
    assert again.done == {"one", "two"}
    assert not Ledger(tmp_path / "a.ledger", "other").load()


@pytest.mark.parametrize("torn", ["", "t", "tas", "task"])
def test_a_ledger_of_which_not_even_the_task_was_written_is_no_ledger(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "a.ledger"
    path.write_text(torn)
    assert not Ledger(path, "task").load()


def test_a_line_that_was_cut_off_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    path.write_text("task\none\ntw")
    ledger = Ledger(path, "task")
    assert ledger.load()
    assert ledger.done == {"one"}
    ledger.add("three")
    again = Ledger(path, "task")
    assert again.load()
    assert again.done == {"one", "three"}


def test_names_of_blocks_tell_them_apart() -> None:
    places = [Place(i, (slice(a, a + 4), slice(0, 8))) for i in ((), (0,), (1,), (1, 0)) for a in (0, 4, 44)]
    assert len({place.name for place in places}) == len(places)
    assert not any("\n" in place.name for place in places)


def test_two_runs_on_one_output_are_refused(model: TrainedModel, noisy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    run = model.predict_into(noisy, out, **HOW)
    next(run)
    with pytest.raises(FileExistsError, match=r"another run is writing .*out\.ome\.zarr.* Wait"):
        next(model.predict_into(noisy, out, overwrite=True, **HOW))
    list(model.predict_into(noisy, tmp_path / "other.ome.zarr", **HOW))
    rest = list(run)
    assert rest[-1].done == rest[-1].total
    assert contents(out) == contents(tmp_path / "other.ome.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noisy.zarr", "other.ome.zarr", "out.ome.zarr"]


def test_the_lock_is_free_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from napari_ssdenoise.engine.outputs import lock_output\n"
        "lock = lock_output(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.npy")], timeout=120, check=False)
    assert done.returncode != 0
    assert (tmp_path / ".out.npy.lock").exists()
    lock_output(tmp_path / "out.npy").release()


@pytest.mark.parametrize("broken", [1, 4, 7])
def test_a_damaged_chunk_is_named_and_the_run_goes_on_after_its_repair(
    model: TrainedModel, noisy: Path, tmp_path: Path, broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ends and the middle are looked at to recognise the image; here, only its corner is.
    monkeypatch.setattr("napari_ssdenoise.engine.job.spot_checks", lambda volume: [(slice(0, 1),) * 3])
    list(model.predict_into(noisy, tmp_path / "whole.ome.zarr", **HOW))
    chunk = noisy / "c" / str(broken) / "0" / "0"
    sound = chunk.read_bytes()
    chunk.write_bytes(b"garbage" * 9)
    out = tmp_path / "out.ome.zarr"
    done = []
    where = rf"noisy\.zarr could not be read at Z {8 * broken}:{8 * broken + 8}, Y 0:20, X 0:18: .*damaged"
    with pytest.raises(UnreadableError, match=where):
        done += list(model.predict_into(noisy, out, **HOW))
    assert not out.exists()
    noted = len((tmp_path / ".out.ome.zarr.ledger").read_text().splitlines()) - 1
    assert noted >= broken - 4  # reading is ahead, and the network looks further
    chunk.write_bytes(sound)
    progress = list(model.predict_into(noisy, out, **HOW))
    assert progress[0].done == min(noted + 1, progress[0].total)
    assert contents(out) == contents(tmp_path / "whole.ome.zarr")


def test_an_image_with_holes_leaves_nothing_behind(model: TrainedModel, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(100, 20, (64, 20, 18)).astype(np.float32)
    image[50, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        list(model.predict_into(Volume(image, "ZYX"), tmp_path / "out.ome.zarr", **HOW))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif", "out.npy"])
@pytest.mark.parametrize("full_at", [0, 3])
def test_a_full_disk_stops_the_run_and_more_space_lets_it_go_on(
    model: TrainedModel, noisy: Path, tmp_path: Path, name: str, full_at: int
) -> None:
    list(model.predict_into(noisy, tmp_path / f"whole{name}", **HOW))
    put, count = LazyArray.__setitem__, [0]

    def full(self: LazyArray, key: Any, value: Any) -> None:
        count[0] += 1
        if count[0] > full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LazyArray, "__setitem__", full)
        with pytest.raises(OSError, match=rf"no space left to write .*{name}\. Free some space") as stopped:
            list(model.predict_into(noisy, tmp_path / name, **HOW))
    assert stopped.value.errno == errno.ENOSPC
    assert not (tmp_path / name).exists()
    progress = list(model.predict_into(noisy, tmp_path / name, **HOW))
    assert progress[0].done == full_at + 1
    first, second = tmp_path / name, tmp_path / f"whole{name}"
    assert contents(first) == contents(second)
    if first.is_file():
        assert first.read_bytes() == second.read_bytes()


def test_a_disk_that_fills_up_in_a_lower_resolution_is_reported_as_well(
    model: TrainedModel, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(_pyramid, "halve", full)
        with pytest.raises(OSError, match=r"no space left to write .*out\.ome\.zarr"):
            list(model.predict_into(noisy, tmp_path / "out.ome.zarr", **HOW))
    list(model.predict_into(noisy, tmp_path / "out.ome.zarr", **HOW))
    list(model.predict_into(noisy, tmp_path / "whole.ome.zarr", **HOW))
    assert contents(tmp_path / "out.ome.zarr") == contents(tmp_path / "whole.ome.zarr")


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif", "out.npy"])
def test_stopped_while_finishing_nothing_is_computed_again(
    model: TrainedModel, noisy: Path, tmp_path: Path, name: str
) -> None:
    list(model.predict_into(noisy, tmp_path / f"whole{name}", **HOW))

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_writer, "publish", stop)
        with pytest.raises(KeyboardInterrupt):
            list(model.predict_into(noisy, tmp_path / name, **HOW))
    progress = list(model.predict_into(noisy, tmp_path / name, **HOW))
    assert len(progress) == 1  # the finishing step alone
    first, second = tmp_path / name, tmp_path / f"whole{name}"
    assert contents(first) == contents(second)
    if first.is_file():
        assert first.read_bytes() == second.read_bytes()


def test_progress_counts_to_the_end(model: TrainedModel, noisy: Path, tmp_path: Path) -> None:
    progress = list(model.predict_into(noisy, tmp_path / "out.ome.zarr", **HOW))
    total = progress[0].total
    assert [p.done for p in progress] == [*range(1, total + 1), total]
    assert {p.total for p in progress} == {total}
    assert progress[-1].region is None
    assert progress[-1].remaining == 0
    counts = np.zeros((64, 20, 18), int)
    for step in progress[:-1]:
        assert step.region is not None
        counts[step.region] += 1
    assert (counts == 1).all()
    assert open_volume(progress[-1].path).shape == (64, 20, 18)


@pytest.mark.parametrize(
    ("axes", "shape", "spatial", "tile"),
    [
        ("ZYX", (20, 40, 33), "YX", None),
        ("TZYX", (5, 20, 24, 20), "TYX", None),
        ("CYX", (3, 40, 33), "YX", (12, 20)),
        ("ZYX", (20, 40, 33), "ZYX", (8, 12, 16)),
    ],
)
def test_no_chunk_of_any_resolution_is_shared_by_two_blocks(
    make_model: Any, tmp_path: Path, axes: str, shape: tuple[int, ...], spatial: str, tile: Any
) -> None:
    """Several processes write blocks at the same time."""
    volume = Volume(np.random.default_rng(0).normal(100, 20, shape).astype(np.float32), axes)
    model = make_model(spatial)
    layout = model.geometry.layout(volume)
    task = stream.prepare(
        *(model, volume, layout, {"mean": tmp_path / "out.ome.zarr"}, "float32"),
        **{"memory": "300 MB", "tile": tile, "device": "cpu", "precision": "float32", "augment": False},
    )
    writer = task.writer(resume=False, overwrite=False)
    chunks = dict(zip(axes, writer.chunks, strict=True))
    for unit in task.plan.units(layout, shape):
        for block in task.plan.blocks(unit):
            for index in unit.indices:
                for axis, n, part in zip(axes, shape, layout.key(index, block), strict=True):
                    start, stop, _ = part.indices(n)
                    assert start % chunks[axis] == 0, axis
                    assert stop % chunks[axis] == 0 or stop == n, axis
    writer.discard()


def test_an_output_of_which_blocks_are_missing_is_not_finished(
    model: TrainedModel, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stream.Task.blocks
    monkeypatch.setattr(stream.Task, "blocks", lambda self, units: (block for block in list(whole(self, units))[:-1]))
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(OSError, match="not complete"):
        list(model.predict_into(noisy, out, **HOW))
    assert not out.exists()
    monkeypatch.undo()
    list(model.predict_into(noisy, out, **HOW))
    assert out.is_dir()
