"""The settings of the allocator are borrowed, not kept; and memory= is obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from napari_ssdenoise.engine import memory
from napari_ssdenoise.engine.memory import format_memory, give_back_memory, reused_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GLIBC = memory._libc() is not None


class FakeLibc:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.set: dict[int, int] = {}
        self.calls: list[str] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.set[parameter] = value
        self.calls.append("mallopt")
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.calls.append("trim")
        return 1


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> FakeLibc:
    fake = FakeLibc()
    monkeypatch.setattr(memory, "_libc", lambda: fake)
    monkeypatch.setattr(memory, "_users", 0)  # whatever other tests still hold
    return fake


def test_settings_return_when_the_last_user_leaves(libc: FakeLibc) -> None:
    with reused_memory():
        assert libc.set[memory._MMAP_MAX] == 0
        inner = reused_memory()
        with inner:
            pass
        assert libc.set[memory._MMAP_MAX] == 0
        assert "trim" not in libc.calls
    assert {parameter: libc.set[parameter] for parameter in memory._USUAL} == memory._USUAL
    assert libc.calls[-1] == "trim"
    assert memory._users == 0


def test_settings_return_after_an_error(libc: FakeLibc) -> None:
    with pytest.raises(OSError, match="disk"), reused_memory():
        raise OSError("disk")
    assert libc.set[memory._MMAP_MAX] == memory._USUAL[memory._MMAP_MAX]
    assert memory._users == 0


def test_users_need_not_leave_in_order(libc: FakeLibc) -> None:
    first, second = reused_memory(), reused_memory()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert libc.set[memory._MMAP_MAX] == 0
    second.__exit__(None, None, None)
    assert libc.set[memory._MMAP_MAX] != 0


def test_a_generator_that_is_dropped_lets_go(libc: FakeLibc) -> None:
    def use() -> Iterator[int]:
        with reused_memory():
            yield from range(3)

    run = use()
    next(run)
    assert memory._users == 1
    del run
    assert memory._users == 0


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_libc", lambda: None)
    monkeypatch.setattr(memory, "_users", 0)
    with reused_memory():
        assert memory._users == 0
    give_back_memory()


@pytest.mark.parametrize(("system", "libc"), [("Windows", ("", "")), ("Darwin", ("", "")), ("Linux", ("musl", "1.2"))])
def test_only_glibc_is_asked(monkeypatch: pytest.MonkeyPatch, system: str, libc: tuple[str, str]) -> None:
    monkeypatch.setattr(memory.platform, "system", lambda: system)
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: libc)
    assert memory._libc.__wrapped__() is None


def test_amounts_for_people() -> None:
    assert [format_memory(n) for n in (2e9, 1.5e8, 99e6, 4e4)] == ["2.00 GB", "0.15 GB", "99.00 MB", "0.04 MB"]


OBEY = """
import json, os, resource, sys, threading, time
import numpy as np, psutil, torch, zarr
from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine import plan as planning
from napari_ssdenoise.engine.memory import resident_bytes, reused_memory
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.volume import Volume

torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 << 20)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages = [faults()]
with reused_memory():
    # At first, aligned blocks may not fit into those freed before, which lie where the heap happens to.
    pages.append(min(faults() for _ in range(8)))

planning._Planner._choices = lambda self: iter([(0, 4), (0, 8)])  # flows only
algorithm = get_algorithm("n2v", width=8)
geometry = Geometry("ZYX", 1, "auto", (True, True, True))
model = TrainedModel(algorithm, geometry.build(algorithm).eval(), geometry, Normalization((100.0,), (20.0,)))
folder, runs = sys.argv[1], json.loads(sys.argv[2])

def made(planes, side):
    path = f"{folder}/in{planes}x{side}.zarr"
    if not os.path.exists(path):
        array = zarr.create_array(path, shape=(planes, side, side), chunks=(16, 64, 64), dtype="uint16")
        array[:16] = np.random.default_rng(0).poisson(100, (16, side, side))
        for z in range(16, planes, 16):  # chunks that are the first ones again
            os.makedirs(f"{path}/c/{z // 16}", exist_ok=True)
            for y in range(-(-side // 64)):
                os.symlink(f"{path}/c/0/{y}", f"{path}/c/{z // 16}/{y}")
    return path

def peak(volume, out, memory):
    most, going = [0], [True]
    def watch():
        while going[0]:
            most[0] = max(most[0], resident_bytes())
            time.sleep(0.002)
    before = resident_bytes()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in model.predict_into(volume, out, memory=memory, device="cpu", precision="float32"):
            pass
    finally:
        going[0] = False
        thread.join()
    return most[0] - before

peak(made(16, 64), f"{folder}/warm.ome.zarr", "1 GB")  # libraries are loaded
found = []
for number, (planes, side, memory) in enumerate(runs):
    plan = model.plan(made(planes, side), memory=memory, device="cpu", precision="float32")
    found.append([peak(made(planes, side), f"{folder}/{number}.ome.zarr", memory), plan.bytes, plan.slab])
print(json.dumps([pages, found]))
"""


@pytest.mark.skipif(not GLIBC, reason="measured where pages are given back at once")
def test_memory_is_obeyed_however_long_the_stack(tmp_path: Path) -> None:
    runs: list[Any] = [(96, 64, "100 MB"), (384, 64, "100 MB"), (96, 64, "200 MB")]
    done = subprocess.run(
        [sys.executable, "-c", OBEY, str(tmp_path), json.dumps(runs)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (usual, reused), found = json.loads(done.stdout)
    assert reused < usual / 10  # pages were used again
    for (_, _, text), (peak, planned, slab) in zip(runs, found, strict=True):
        allowed = memory.parse_memory(text)
        assert slab
        assert planned <= allowed
        # What oneDNN, zarr and the allocator hold for themselves does not grow with the image, nor with `memory`.
        assert peak <= allowed + 150e6, found
    assert found[1][0] < 1.1 * found[0][0] + 32e6, found
