"""Predictions on the workers of a real dask cluster: equal, repeated where workers die, refused if impossible."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from napari_ssdenoise import open_volume
from napari_ssdenoise.algorithms import BlindSpot
from napari_ssdenoise.engine import plan, worker
from napari_ssdenoise.engine.job import Place, to_dtype
from napari_ssdenoise.engine.tiles import TilePlan
from napari_ssdenoise.io import UnreadableError, write_volume
from napari_ssdenoise.volume import Volume

distributed_package = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")

from napari_ssdenoise.engine import distributed  # noqa: E402
from napari_ssdenoise.engine.distributed import Scheduler  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.engine.job import TileDone
    from napari_ssdenoise.model import TrainedModel

    MakeModel = Callable[..., TrainedModel]

FRAMES = 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[Scheduler]:
    # The workers cannot import this file, so what is sent of it travels whole.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Scheduler("local", workers=2) as scheduler:
        yield scheduler
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def model(make_model: MakeModel) -> TrainedModel:
    return make_model("YX", depth=1)


@pytest.fixture(autouse=True)
def _a_tile_for_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "BATCH_PIXELS", 1)


def movie(dtype: str = "float32") -> Volume:
    data = np.random.default_rng(1).normal(100, 20, (FRAMES, 48, 40)).astype(dtype)
    return Volume(data, "TYX", scale=(1, 0.5, 0.5), units=("second", "micrometer", "micrometer"))


class Slow:
    """An image that takes its time on workers, so that a run can be disturbed."""

    def __init__(self, data: Any) -> None:
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.home = os.getpid()

    def __getitem__(self, key: Any) -> Any:
        if os.getpid() != self.home:
            time.sleep(0.15)
        return self.data[key]


def slow(volume: Volume | None = None) -> Volume:
    volume = volume or movie()
    return volume.like(Slow(volume.data))


def begin(model: TrainedModel, volume: Any, path: Path, scheduler: Any) -> Generator[TileDone]:
    # So little memory that the stack below flows through the network.
    return model.predict_into(volume, path, scheduler=scheduler, precision="float32", memory="90 MB")


def predict(model: TrainedModel, volume: Any, path: Path, scheduler: Any) -> list[TileDone]:
    return list(begin(model, volume, path, scheduler))


@pytest.fixture(params=["movie", "stack"])
def case(request: pytest.FixtureRequest, make_model: MakeModel) -> tuple[TrainedModel, Volume]:
    """Return frames, a tile each; and a stack whose tiles are of many blocks."""
    if request.param == "movie":
        return make_model("YX", depth=1), movie()
    data = np.random.default_rng(2).normal(100, 20, (24, 400, 64)).astype("float32")
    return make_model("ZYX", depth=1), Volume(data, "ZYX")


def pixels(path: Path) -> Any:
    return np.asarray(open_volume(path))


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".npy"])
def test_equals_one_machine(cluster: Scheduler, model: TrainedModel, tmp_path: Path, suffix: str) -> None:
    source = write_volume(tmp_path / f"noisy{suffix}", movie())
    # A .npy does not say what its axes are.
    volume = open_volume(source, axes="TYX")
    progress = predict(model, volume, tmp_path / "out.ome.zarr", cluster)
    assert [p.done for p in progress] == [*range(1, FRAMES + 1), FRAMES]
    expected = model.predict(movie(), precision="float32")
    np.testing.assert_allclose(pixels(tmp_path / "out.ome.zarr"), expected, rtol=1e-5, atol=1e-3)
    if suffix != ".npy":
        assert open_volume(tmp_path / "out.ome.zarr").scale == (1, 0.5, 0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"noisy{suffix}", "out.ome.zarr"]


@pytest.mark.parametrize("case", ["stack"], indirect=True)
def test_a_stack_is_cut_for_the_workers(cluster: Scheduler, case: tuple[TrainedModel, Volume], tmp_path: Path) -> None:
    model, stack = case
    source = write_volume(tmp_path / "noisy.ome.zarr", stack)
    predict(model, source, tmp_path / "out.ome.zarr", cluster)
    expected = model.predict(source, precision="float32", memory="90 MB")
    np.testing.assert_allclose(pixels(tmp_path / "out.ome.zarr"), expected, rtol=1e-5, atol=1e-3)


def test_several_outputs_in_one_run(cluster: Scheduler, make_model: MakeModel, tmp_path: Path) -> None:
    blind = make_model("YX", algorithm=BlindSpot(width=4, depth=1, noise="gaussian", sigma=5.0))
    model = replace(blind, conditions=((0.0, 0.1, 1e-3, 1e-6),))
    paths = {"mean": tmp_path / "mean.ome.zarr", "std": tmp_path / "std.ome.zarr"}
    how: dict[str, Any] = {"scheduler": cluster, "precision": "float32"}
    with pytest.raises(ValueError, match=r"std\.tif cannot be written by several workers"):
        list(model.predict_into(movie(), paths["mean"], also={"std": tmp_path / "std.tif"}, **how))
    list(model.predict_into(movie(), paths["mean"], also={"std": paths["std"]}, **how))
    expected = model.predict(movie(), outputs=("mean", "std"), precision="float32")
    for path, image in zip(paths.values(), expected, strict=True):
        np.testing.assert_allclose(pixels(path), image, rtol=1e-5, atol=1e-3)
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


def test_integers_differ_by_rounding_at_most(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    source = write_volume(tmp_path / "noisy.ome.zarr", movie("uint16"))
    predict(model, source, tmp_path / "out.ome.zarr", cluster)
    found = pixels(tmp_path / "out.ome.zarr")
    expected = to_dtype(model.predict(source, precision="float32"), np.dtype(np.uint16))
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["numpy", "zarr", "zarr in memory", "dask"])
def test_arrays_without_a_file(
    cluster: Scheduler, model: TrainedModel, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask.array
    import zarr

    monkeypatch.setattr(worker, "PART_BYTES", 10_000)
    data: Any = movie().data
    if kind == "dask":
        data = dask.array.from_array(data, chunks=(1, 48, 40))
    elif kind == "zarr":
        data = zarr.save_array(tmp_path / "a.zarr", data) or zarr.open_array(tmp_path / "a.zarr")
    elif kind == "zarr in memory":
        data = zarr.array(data)
    predict(model, Volume(data, "TYX"), tmp_path / "out.ome.zarr", cluster)
    expected = model.predict(movie(), precision="float32")
    np.testing.assert_allclose(pixels(tmp_path / "out.ome.zarr"), expected, rtol=1e-5, atol=1e-3)


def test_the_work_of_a_killed_worker_is_done_again(
    cluster: Scheduler, case: tuple[TrainedModel, Volume], tmp_path: Path
) -> None:
    model, volume = case
    predict(model, volume, tmp_path / "whole.ome.zarr", cluster)
    before = cluster.client.run(os.getpid)
    run = begin(model, slow(volume), tmp_path / "out.ome.zarr", cluster)
    next(run)
    os.kill(next(iter(before.values())), signal.SIGKILL)
    progress = list(run)
    assert [p.done for p in progress[:-1]] == list(range(2, progress[-1].total + 1))
    np.testing.assert_array_equal(pixels(tmp_path / "out.ome.zarr"), pixels(tmp_path / "whole.ome.zarr"))
    cluster.client.wait_for_workers(2, timeout=30)
    assert set(cluster.client.run(os.getpid).values()) != set(before.values())


def test_a_stopped_run_goes_on(cluster: Scheduler, case: tuple[TrainedModel, Volume], tmp_path: Path) -> None:
    model, volume = case
    out = tmp_path / "out.ome.zarr"
    run = begin(model, slow(volume), out, cluster)
    for _ in range(4):
        next(run)
    run.close()
    assert not out.exists()
    progress = predict(model, slow(volume), out, cluster)
    assert progress[0].done == 5
    predict(model, volume, tmp_path / "whole.ome.zarr", cluster)
    np.testing.assert_array_equal(pixels(out), pixels(tmp_path / "whole.ome.zarr"))


def test_what_one_machine_has_begun_a_cluster_completes(
    cluster: Scheduler, model: TrainedModel, tmp_path: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    run = begin(model, movie(), out, None)
    for _ in range(3):
        next(run)
    run.close()
    assert predict(model, movie(), out, cluster)[0].done >= 4
    expected = model.predict(movie(), precision="float32")
    np.testing.assert_allclose(pixels(out), expected, rtol=1e-5, atol=1e-3)


def test_stopping_from_another_thread(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    address = cluster.client.scheduler.address
    seen: list[Any] = []

    def run() -> None:
        try:
            seen.extend(begin(model, slow(), tmp_path / "out.ome.zarr", own))
        except InterruptedError as error:
            seen.append(error)

    with Scheduler(address) as own:
        thread = Thread(target=run)
        thread.start()
        while not seen:
            time.sleep(0.01)
        own.stop()
        thread.join()
        with pytest.raises(InterruptedError):
            predict(model, movie(), tmp_path / "another.ome.zarr", own)
    assert isinstance(seen[-1], InterruptedError)
    assert predict(model, slow(), tmp_path / "out.ome.zarr", cluster)[0].done >= 2


def test_workers_stop_with_the_run(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    run = begin(model, slow(), tmp_path / "out.ome.zarr", cluster)
    next(run)
    run.close()
    while any(cluster.client.run(lambda dask_worker: dask_worker.state.executing_count).values()):
        time.sleep(0.05)
    noted = (tmp_path / ".out.ome.zarr.ledger").read_text().splitlines()[1:]
    assert 1 <= len(noted) < FRAMES


def test_several_at_once_on_one_connection(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    images = [Volume(movie().data + 10 * number, "TYX") for number in range(3)]
    runs = [begin(model, image, tmp_path / f"{number}.ome.zarr", cluster) for number, image in enumerate(images)]
    threads = [Thread(target=list, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, image in enumerate(images):
        expected = model.predict(image, precision="float32")
        np.testing.assert_allclose(pixels(tmp_path / f"{number}.ome.zarr"), expected, rtol=1e-5, atol=1e-3)


def test_weights_reach_each_worker_once(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    def arrivals(dask_worker: Any) -> int:
        """Count how often the model was received from the other worker, or put together here."""
        received = sum(key in transfer["keys"] for transfer in dask_worker.transfer_incoming_log)
        made = sum(
            getattr(event, "key", None) == key and type(event).__name__ == "ExecuteSuccessEvent"
            for event in dask_worker.state.stimulus_log
        )
        return received + made

    for number in range(2):
        predict(model, movie(), tmp_path / f"{number}.ome.zarr", cluster)
    key = cluster._models[model].key
    assert max(cluster.client.run(arrivals).values()) == 1


def test_one_task_for_each_gpu(
    cluster: Scheduler, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "_visible_gpus", lambda: ["7", "GPU-9"])
    monkeypatch.setattr(distributed, "SENT_AHEAD", 4)
    original = distributed._local_workers
    threads = {"nthreads": 4}  # which alone would let four tasks begin
    monkeypatch.setattr(distributed, "_local_workers", lambda count: [{**o, **threads} for o in original(count)])
    seen = []
    with Scheduler("local") as gpus:
        pids = gpus.client.run(os.getpid).values()
        environments = gpus.client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        for _ in begin(model, slow(), tmp_path / "out.ome.zarr", gpus):
            seen += gpus.client.run(lambda dask_worker: dask_worker.state.executing_count).values()
    assert sorted(environments.values()) == ["7", "GPU-9"]
    assert max(seen) == 1
    np.testing.assert_allclose(
        pixels(tmp_path / "out.ome.zarr"), model.predict(movie(), precision="float32"), rtol=1e-5, atol=1e-3
    )
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_local_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (alone,) = distributed._local_workers(None)
    assert alone["env"]["OMP_NUM_THREADS"] == "8"
    assert "resources" not in alone
    assert [o["env"]["OMP_NUM_THREADS"] for o in distributed._local_workers(3)] == ["2"] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = distributed._local_workers(None)
    assert [o["env"]["CUDA_VISIBLE_DEVICES"] for o in both] == ["0", "1"]
    assert [o["resources"] for o in both] == [{"GPU": 1}] * 2
    assert [o["env"]["CUDA_VISIBLE_DEVICES"] for o in distributed._local_workers(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 3")  # as SLURM sets it
    assert [o["env"]["CUDA_VISIBLE_DEVICES"] for o in distributed._local_workers(None)] == ["5", "3"]


def test_plans_are_cut_no_further_than_pays(make_model: MakeModel) -> None:
    some = make_model("ZYX", depth=1).plan(Volume(np.zeros((64, 64, 64), np.float32), "ZYX"))

    def flowing(planes: int) -> plan.Plan:
        shape = (planes, 64, 64)
        return replace(some, tiles=TilePlan(shape, shape, (9, 9, 9), (2, 2, 2)), axis=0, slab=8, block=16)

    assert len(distributed._split(flowing(8000), 1, 4).tiles) == 4 * distributed.UNITS_PER_WORKER
    assert distributed._split(flowing(8000), 100, 2) == flowing(8000)
    assert len(distributed._split(flowing(100), 1, 2).tiles) == 2
    assert distributed._split(flowing(100), 1, 50).work < 2 * flowing(100).work


def test_places_are_read_as_they_are_written() -> None:
    place = Place((1, 0), (slice(0, 16), slice(32, 48)))
    assert distributed._place(place.name) == place


def test_other_formats_are_refused(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.ome\.zarr"):
        predict(model, movie(), tmp_path / "out.tif", cluster)
    assert not list(tmp_path.iterdir())


def test_images_too_large_to_send_are_refused(
    cluster: Scheduler, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SENT_BYTES", 20_000)
    with pytest.raises(ValueError, match="Save it"):
        predict(model, movie(), tmp_path / "out.ome.zarr", cluster)
    with pytest.raises(ValueError, match="cannot be sent to workers"):
        predict(model, movie().like(Stuck()), tmp_path / "out.ome.zarr", cluster)
    assert not list(tmp_path.iterdir())


class Stuck(Slow):
    """An image that cannot leave its process."""

    def __init__(self) -> None:
        super().__init__(movie().data)

    def __reduce__(self) -> Any:
        raise TypeError("an open file")


def test_what_a_worker_does_not_see_is_named(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    source = write_volume(tmp_path / "noisy.npy", movie())
    volume = open_volume(source, axes="TYX")
    source.rename(tmp_path / "elsewhere.npy")
    with pytest.raises(FileNotFoundError, match=r"does not see .*noisy\.npy"):
        predict(model, volume, tmp_path / "out.ome.zarr", cluster)
    np.save(source, np.zeros((3, 4, 5)))
    with pytest.raises(OSError, match=r"noisy\.npy is another image on a worker"):
        predict(model, volume, tmp_path / "out.ome.zarr", cluster)
    (tmp_path / "elsewhere.npy").replace(source)
    predict(model, volume, tmp_path / "out.ome.zarr", cluster)


def test_an_output_that_a_worker_does_not_see_is_not_begun_anew(model: TrainedModel, tmp_path: Path) -> None:
    from napari_ssdenoise.engine.stream import prepare

    options: dict[str, Any] = {"memory": "1 GB", "tile": None, "device": "cpu", "precision": "float32"}
    layout = model.geometry.layout(movie())
    task = prepare(model, movie(), layout, {"mean": tmp_path / "o.zarr"}, "auto", augment=False, **options)
    with pytest.raises(OSError, match="does not see the output"):
        worker._writer(task)
    assert not list(tmp_path.iterdir())


def test_an_unreadable_chunk_is_named(cluster: Scheduler, model: TrainedModel, tmp_path: Path) -> None:
    source = write_volume(tmp_path / "noisy.ome.zarr", movie())
    chunk = sorted(p for p in (source / "0" / "c").rglob("*") if p.is_file())[5]
    whole = chunk.read_bytes()
    chunk.write_bytes(b"not a chunk")
    with pytest.raises(UnreadableError, match=r"noisy\.ome\.zarr could not be read at T "):
        predict(model, source, tmp_path / "out.ome.zarr", cluster)
    assert not (tmp_path / "out.ome.zarr").exists()
    chunk.write_bytes(whole)
    predict(model, source, tmp_path / "out.ome.zarr", cluster)


def test_no_scheduler_at_the_address(tmp_path: Path, model: TrainedModel) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(OSError, match="no dask scheduler answers at 'tcp://127"):
            Scheduler(address)
        with pytest.raises(OSError, match="no dask scheduler answers"):
            predict(model, movie(), tmp_path / "out.ome.zarr", address)
    for wrong in ("udp://nowhere:1", "tcp://", "no such host"):
        with pytest.raises(OSError, match="no dask scheduler answers"):
            Scheduler(wrong)


def test_workers_that_are_of_no_use(cluster: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    address = cluster.client.scheduler.address

    def old() -> dict[str, Any]:
        return {"version": "0.0.1", "resources": {}}

    def without() -> None:
        raise ModuleNotFoundError("No module named 'napari_ssdenoise'")

    monkeypatch.setattr(worker, "describe", old)
    with pytest.raises(OSError, match=r"have napari-ssdenoise 0\.0\.1"):
        Scheduler(address)
    monkeypatch.setattr(worker, "describe", without)
    with pytest.raises(OSError, match="cannot be loaded on the workers"):
        Scheduler(address)
    monkeypatch.setattr(distributed, "WORKER_SECONDS", 0.1)
    monkeypatch.setattr(distributed, "_local_workers", lambda _: [])
    with pytest.raises(OSError, match="no worker is connected"):
        Scheduler("local")


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"napari-ssdenoise\[cluster\]"):
        Scheduler("local")


def test_a_client_that_hangs_up_while_it_is_sent_something(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scheduler("local", workers=1) as connection:
        logging.getLogger("distributed.scheduler").addHandler(caplog.handler)
        client, dask_scheduler = connection.client, connection.client.cluster.scheduler
        close = client.close

        def hang_up() -> None:
            stream = dask_scheduler.client_comms[client.id]
            close()
            dask_scheduler.client_comms[client.id] = stream  # as when the news of it is still under way
            dask_scheduler.client_send(client.id, {"op": "restart"})

        monkeypatch.setattr(client, "close", hang_up)
        connection.close()
        logging.getLogger("distributed.scheduler").removeHandler(caplog.handler)
    assert "Closed comm" not in caplog.text
