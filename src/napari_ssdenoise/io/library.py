"""A folder of saved models: what they are, without their weights and without torch; rename them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_ssdenoise.io._lazy import reason
from napari_ssdenoise.io.bundle import is_model, read_description, read_thumbnail


@dataclass(frozen=True)
class Shelved:
    """A saved model as a list shows it.

    Attributes
    ----------
    path
        A folder or a .zip.
    title
        The algorithm's.
    axes
        That its network looks along.
    trained_on
        Names of the images.
    data_range
        Smallest and largest value of these; infinite if not known.
    steps
        Of the training; None if not known.
    saved
        When the file was last written.
    loss
        The training's curve: steps and losses.
    picture
        Before and after, as PNG; None if there is none.
    """

    path: Path
    title: str
    axes: str
    trained_on: tuple[str, ...]
    data_range: tuple[float, float]
    steps: int | None
    saved: datetime
    loss: tuple[tuple[int, float], ...]
    picture: bytes | None

    @property
    def name(self) -> str:
        """What the file is called, without its ending."""
        name = self.path.name
        for ending in (".zip", ".model"):
            name = name.removesuffix(ending)
        return name

    @classmethod
    def read(cls, path: Path) -> Shelved:
        """Look at a saved model.

        Raises
        ------
        ValueError
            If it is none, or it is damaged.
        """
        from napari_ssdenoise.algorithms import list_algorithms

        described = read_description(path)
        try:
            record: Mapping[str, Any] = described.get("record", {})
            known = list_algorithms().get(described["algorithm"])
            stored = described["normalization"]
            return cls(
                path,
                known.title if known else str(described["algorithm"]),
                str(described["geometry"]["spatial"]),
                tuple(str(data["name"]) for data in record.get("data", ())),
                (float(stored["low"]), float(stored["high"])),
                None if record.get("steps") is None else int(record["steps"]),
                datetime.fromtimestamp(path.stat().st_mtime).astimezone(),
                tuple((int(entry[0]), float(entry[-1])) for entry in record.get("loss", ())),
                read_thumbnail(path),
            )
        except (LookupError, TypeError, ValueError, ArithmeticError, OSError, AttributeError) as error:
            raise ValueError(f"{path} is damaged, or made by another version: {reason(error)}.") from error


def models_in(folder: Path) -> Iterator[Shelved]:
    """Iterate over the models in a folder, newest first; what is no model, or damaged, is left out.

    Raises
    ------
    OSError
        If there is no such folder, or it cannot be read.
    """
    found = [path for path in folder.iterdir() if not path.name.startswith(".") and _may_be_model(path)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            yield Shelved.read(path)
        except ValueError:
            continue


def _may_be_model(path: Path) -> bool:
    return (path.is_dir() or path.suffix == ".zip") and is_model(path)


def rename_model(path: Path, name: str) -> Path:
    """Give a saved model another name, in the same folder; its ending stays.

    Raises
    ------
    ValueError
        If that is no name for a file.
    FileExistsError
        If something has it already.
    """
    name = name.strip()
    if not name or name.startswith(".") or any(sign in name for sign in '/\\:*?"<>|') or not name.isprintable():
        raise ValueError(f"{name!r} cannot be the name of a file. Use letters, digits, spaces, - and _.")
    ending = ".model" if path.name.endswith(".model") else ""
    ending = (".model.zip" if path.name.endswith(".model.zip") else ".zip") if path.suffix == ".zip" else ending
    target = path.with_name(name if name.endswith(ending) else name + ending)
    if target == path:
        return path
    if target.exists():
        raise FileExistsError(f"{target.name} exists already. Choose another name.")
    return path.rename(target)
