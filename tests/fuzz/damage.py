"""Ways to spoil bytes, JSON and folders, all of them functions of a random generator."""

from __future__ import annotations

import json
import random
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

# What programs trip over: empty, negative, huge, not finite, of another type, nested.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, -(2**40), 1e308, 1e-320, float("nan"), float("inf")),
    *("", "0", "a", "é\u0000", "../../x", "/etc/passwd", "x" * 3000, [], {}, [[]], [{}], {"": None}, [1, "a", None]),
)
ODD_NUMBERS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62)


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return other bytes: one to four changes, half of them near the beginning or the end, where headers are."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        out = _change(out, rng)
    return bytes(out)


def _position(size: int, rng: random.Random) -> int:
    near = rng.random()
    if near < 0.4:
        return rng.randrange(min(size, 400))
    return size - 1 - rng.randrange(min(size, 400)) if near < 0.5 else rng.randrange(size)


def _change(out: bytearray, rng: random.Random) -> bytearray:
    at = _position(len(out), rng)
    length = rng.choice((1, 2, 4, 8, 30, 200))
    kind = rng.randrange(9)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.randrange(256)
    elif kind == 2:  # a number of 1 to 8 bytes, little or big endian
        size = rng.choice((1, 2, 4, 8))
        value = rng.choice(ODD_NUMBERS) & ((1 << 8 * size) - 1)
        out[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    elif kind == 3:
        del out[at:]
    elif kind == 4:
        del out[at : at + length]
    elif kind == 5:
        out[at : at + length] = bytes(min(length, len(out) - at))
    elif kind == 6:
        out[at:at] = rng.randbytes(length)
    elif kind == 7:
        other = _position(len(out), rng)
        out[at : at + length] = out[other : other + length]
    else:
        out += rng.randbytes(length)
    return out


def spoil_json(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value with one or two of its parts replaced, left out, renamed or repeated."""
    copy = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2))):
        holders = list(_holders(copy))
        if not holders:
            return deepcopy(rng.choice(ODD_VALUES))
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(("", "x", str(key) + " ", "axes", "shape"))] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.append(holder[key])
        elif kind == 3 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((holder[key] * -1, holder[key] * 1000, holder[key] + 1, float(holder[key]) / 3))
        else:
            holder[key] = deepcopy(rng.choice(ODD_VALUES))
    return copy


def _holders(value: Any) -> Any:
    """Find all that is not empty and can be changed in place."""
    if isinstance(value, (dict, list)) and value:
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _holders(part)


def spoil_file(path: Path, rng: random.Random) -> None:
    """Spoil a file in place; JSON in half of the cases by its values."""
    data = path.read_bytes()
    if (path.suffix == ".json" or path.name.startswith(".z")) and rng.random() < 0.7:
        path.write_text(json.dumps(spoil_json(json.loads(data), rng)), encoding="utf8")
    else:
        path.write_bytes(spoil_bytes(data, rng))


def spoil_folder(folder: Path, rng: random.Random) -> None:
    """Spoil one file of a folder, or put something else in its place."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    described = [path for path in files if path.suffix == ".json" or path.name.startswith(".z")]
    path = rng.choice(described if described and rng.random() < 0.6 else files)
    kind = rng.random()
    if kind < 0.8:
        spoil_file(path, rng)
    elif kind < 0.88:
        path.unlink()
    elif kind < 0.92:
        path.unlink()
        path.mkdir()
    elif kind < 0.96:
        path.unlink()
        path.symlink_to(rng.choice((path, folder.parent / "nowhere", Path("/"), Path("/etc/passwd"))))
    else:
        other = rng.choice(files)
        if other != path:
            shutil.copyfile(other, path)
