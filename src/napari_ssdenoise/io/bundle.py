"""Saved models: a folder, or one .zip, with ``model.json`` and ``weights.safetensors``."""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.geometry import Geometry
from napari_ssdenoise.io._lazy import reason
from napari_ssdenoise.io._model_checks import check_geometry, check_network, check_normalization, check_record
from napari_ssdenoise.io._writer import publish
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.normalize import Normalization

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

FORMAT = "napari-ssdenoise model"
VERSION = 1
DESCRIPTION, WEIGHTS, THUMBNAIL = "model.json", "weights.safetensors", "thumbnail.png"
# Bytes that are read of a file whose size nobody vouches for: a few kilobytes can unpack to more than there is memory.
MOST_DESCRIPTION, MOST_WEIGHTS, MOST_THUMBNAIL = 1 << 26, 1 << 32, 1 << 20
LARGEST = {DESCRIPTION: MOST_DESCRIPTION, WEIGHTS: MOST_WEIGHTS}
ZOO = ("rdf.yaml", "bioimageio.yaml")  # what a package of the BioImage Model Zoo is known by


def save_model(model: TrainedModel, path: Path, *, overwrite: bool, sample: Any = None) -> Path:
    """Write a model so that its name appears only when it is complete; see `TrainedModel.save`.

    Raises
    ------
    FileExistsError
        If something else than a model has that name, or ``overwrite`` is False.
    """
    if path.exists() and not (overwrite and is_model(path)):
        advice = "Choose another name: only a saved model is ever replaced." if overwrite else "Pass overwrite=True."
        raise FileExistsError(f"{path} exists. {advice}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist. Make it first, or choose another place.")
    picture = _picture(model, sample)
    description = {"format": FORMAT, "version": VERSION, **model.describe()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        (made / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf8")
        write_tensors(made / WEIGHTS, model.weights())
        if picture is not None:
            (made / THUMBNAIL).write_bytes(picture)
        if path.suffix == ".zip":
            packed = Path(scratch) / "packed"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for member in sorted(made.iterdir()):
                    archive.write(member, member.name)
            made = packed
        publish(made, path, overwrite=overwrite)
    return path


def _picture(model: TrainedModel, sample: Any) -> bytes | None:
    """Return the model's picture: of the sample, else what is kept with the file that it was loaded from."""
    from napari_ssdenoise.io._thumbnail import thumbnail

    if sample is not None:
        return thumbnail(model, sample)
    return None if model.path is None else read_thumbnail(model.path)


def read_thumbnail(path: Path) -> bytes | None:
    """Return the picture that is kept with a model, as PNG; None if there is none."""
    return _member(path, THUMBNAIL, MOST_THUMBNAIL)


def read_description(path: Path) -> dict[str, Any]:
    """Return what `TrainedModel.describe` tells of a saved model, without its weights and without torch.

    Raises
    ------
    ValueError
        If it is no saved model.
    """
    try:
        found = json.loads(_member(path, DESCRIPTION, MOST_DESCRIPTION) or b"null")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {DESCRIPTION} cannot be read ({reason(error)}).") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is not a saved model of napari-ssdenoise.")
    return found


def _member(path: Path, name: str, most: int) -> bytes | None:
    """Read a small file of a model; None if it is missing, damaged or too large to be one."""
    try:
        if path.is_dir():
            member = path / name
            return member.read_bytes() if member.is_file() and member.stat().st_size <= most else None
        with zipfile.ZipFile(path) as archive:
            return archive.read(name) if archive.getinfo(name).file_size <= most else None
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
        return None


def load_model(path: Path) -> TrainedModel:
    """Read a model; see `TrainedModel.load`."""
    if not path.exists():
        raise FileNotFoundError(f"there is no model {path}. Check the name.")
    try:
        if path.is_dir():
            for name, limit in LARGEST.items():
                _require_size(name, (path / name).stat().st_size, limit)
            text, weights = (path / DESCRIPTION).read_text(encoding="utf8"), (path / WEIGHTS).read_bytes()
        else:
            # Members are read by their exact names, never unpacked, so no path in the archive can lead elsewhere.
            with zipfile.ZipFile(path) as archive:
                for name, limit in LARGEST.items():
                    _require_size(name, archive.getinfo(name).file_size, limit)
                text, weights = archive.read(DESCRIPTION).decode("utf8"), archive.read(WEIGHTS)
        description = json.loads(text)
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        if is_zoo_package(path) and not is_model(path):
            raise ValueError(
                f"{path} is a model of the BioImage Model Zoo that another program made. Only those exported by "
                "napari-ssdenoise are opened here, from the plain numbers in them; the network of others is a program, "
                "which is never run. Use the program that it was made for, or bioimageio.core."
            ) from error
        raise ValueError(
            f"{path} is not a saved model, or it is damaged: {DESCRIPTION} or {WEIGHTS} cannot be read "
            f"({reason(error)})."
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by napari-ssdenoise. Choose a model saved with it.")
    if description.get("version") != VERSION:
        raise ValueError(
            f"{path} has format version {description.get('version')!r:.40}, but this napari-ssdenoise reads version "
            f"{VERSION}. Update napari-ssdenoise."
        )
    return _assemble(path, description, weights)


def is_zoo_package(path: Path) -> bool:
    """Tell whether a folder or file is a package of the BioImage Model Zoo, of whatever program."""
    if path.is_dir():
        return any((path / name).is_file() for name in ZOO)
    return not set(ZOO).isdisjoint(_members(path))


def _require_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"its {name} claims {size / 2**30:.3g} GiB")


def _assemble(path: Path, description: Mapping[str, Any], weights: bytes) -> TrainedModel:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from napari_ssdenoise.algorithms import get_algorithm

    try:
        algorithm = get_algorithm(description["algorithm"], **description["settings"])
        algorithm.require_settled()
        geometry = Geometry(**{**description["geometry"], "pooled": tuple(description["geometry"]["pooled"])})
        check_geometry(geometry)
        stored = description["normalization"]
        noise = tuple(map(float, stored.get("noise", ())))  # not in older models
        normalization = Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["low"], stored["high"], noise)
        check_normalization(normalization)
        record = description.get("record", {})
        check_record(record)
        conditions = tuple(tuple(map(float, told)) for told in description.get("conditions", ()))
        network = geometry.build(algorithm)
        network.load_state_dict(load(weights))
        check_network(network, conditions)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{path} is damaged, or made by another version: {reason(error)}. Train or save the model again."
        ) from error
    return TrainedModel(algorithm, network.eval(), geometry, normalization, record, conditions, path)


def is_model(path: Path) -> bool:
    """Tell whether a path is a saved model (and may be replaced by one)."""
    if path.is_dir():
        return (path / DESCRIPTION).is_file() and (path / WEIGHTS).is_file()
    return DESCRIPTION in _members(path)


def _members(path: Path) -> list[str]:
    """List what is in an archive; nothing where there is none, or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile):
        return []


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, under a temporary name until they are complete."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, dict(metadata or {}))
    partial.replace(path)
