"""Read OME-Zarr images (0.4 and 0.5) and plain Zarr arrays (format 2 and 3) lazily."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.axes import AXES, guess_axes, parse_axes
from napari_ssdenoise.io._affine import read_space
from napari_ssdenoise.io._blosc import refuse_cut_chunks
from napari_ssdenoise.io._channels import names_in
from napari_ssdenoise.io._lazy import present, reason
from napari_ssdenoise.io._units import unit_name
from napari_ssdenoise.io._writer import NOTE, is_zarr
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

# How deep and how long to look for images in a group: plates go down row / column / field.
MAX_DEPTH = 3
MAX_LISTED = 20


def read_ome_zarr(path: Path, axes: str | None = None) -> Volume:
    """Open an image in a Zarr store at its full resolution.

    Parameters
    ----------
    path
        A store, or a group or array inside one: ``store.ome.zarr``, ``store.zarr/name``, ``store.ome.zarr/1`` for a
        lower resolution.
    axes
        One letter per dimension, where the store does not say or is wrong.

    Raises
    ------
    ValueError
        If the store holds no image, several of which none is meant, or cannot be read.
    """
    import zarr

    target = choose_image(path)
    node = _open(target)
    if isinstance(node, zarr.Group):
        multiscales = _multiscales(node)
        if not multiscales:
            raise ValueError(
                f"{target} is damaged: its multiscales describe no image. Give the path of an array inside."
            )
        multiscale = multiscales[0]
        dataset = _datasets(multiscale, target)[0]
        return _image(_open_level(target, str(dataset["path"])), target, node.attrs, multiscale, dataset, axes)
    parent = target.parent
    if is_zarr(parent) and _node_type(parent) == "group":
        group = _open(parent)
        for multiscale in _multiscales(group):
            for dataset in _datasets(multiscale, parent):
                if dataset["path"] == target.name:
                    return _image(node, target, group.attrs, multiscale, dataset, axes)
    return _plain(node, target, axes)


def choose_image(path: Path) -> Path:
    """Return the one image at or below a path.

    Raises
    ------
    ValueError
        If there is none, or more than one; the message lists them.
    """
    if _node_type(path) == "array" or _is_image(path):
        return path
    images = find_images(path)
    if len(images) == 1:
        return path / images[0]
    if not images:
        raise ValueError(f"{path} is a Zarr group without an image in it. Give the path of an array or an OME-Zarr.")
    shown = ", ".join(images[:MAX_LISTED]) + (", …" if len(images) > MAX_LISTED else "")
    raise ValueError(f"{path} holds several images: {shown}. Give one of them, e.g. {path / images[0]}.")


def find_images(path: Path, depth: int = MAX_DEPTH) -> list[str]:
    """List the images below a group, as paths inside it, a few more than one would show at most."""
    found: list[str] = []
    for child in sorted(path.iterdir(), key=lambda p: (len(p.name), p.name)):
        if not child.is_dir() or child.name.startswith(".") or child.name in ("labels", "OME"):
            continue
        if not is_zarr(child):
            # Groups between a store and its images may be implied in format 2.
            found += [f"{child.name}/{name}" for name in (find_images(child, depth - 1) if depth > 1 else [])]
        elif _node_type(child) == "array" or _is_image(child):
            found.append(child.name)
        elif depth > 1:
            found += [f"{child.name}/{name}" for name in find_images(child, depth - 1)]
        if len(found) > MAX_LISTED:
            break
    return found


def store_of(path: Path) -> tuple[Path, str]:
    """Split a path into the store it lies in and the name inside it (``""`` for the store itself)."""
    root = path
    for parent in path.parents:
        if is_zarr(parent):
            root = parent
        elif parent.parent == parent or not parent.name.lower().endswith(".zarr"):
            break
    return root, "" if root == path else path.relative_to(root).as_posix()


def _name(path: Path) -> str:
    """Name an image after its store and its place in it, so that equal inner names stay apart."""
    root, inner = store_of(path)
    stem = root.name
    for suffix in (".zarr", ".ome"):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    return f"{stem}_{inner.replace('/', '_')}" if inner else stem


def _node_type(path: Path) -> str:
    """Return ``"array"``, ``"group"`` or ``""``."""
    if (path / "zarr.json").is_file():
        return str(_json(path / "zarr.json").get("node_type", ""))
    if (path / ".zarray").is_file():
        return "array"
    return "group" if (path / ".zgroup").is_file() else ""


def _is_image(path: Path) -> bool:
    """Tell whether a group has the metadata of a multiscale image."""
    if (path / "zarr.json").is_file():
        attributes = _json(path / "zarr.json").get("attributes") or {}
    elif (path / ".zattrs").is_file():
        attributes = _json(path / ".zattrs")
    else:
        return False
    return isinstance(attributes, dict) and bool(_ome(attributes).get("multiscales"))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ValueError(f"{path} is damaged: {reason(exc)}. Copy the store again from where it came from.") from exc
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no Zarr metadata. Copy the store again from where it came from.")
    return content


def _ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME metadata: under ``ome`` since 0.5, at the top before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _open(path: Path) -> zarr.Group | zarr.Array[Any]:
    import zarr

    refuse_cut_chunks()
    try:
        node: zarr.Group | zarr.Array[Any] = zarr.open(str(path), mode="r")
    except OSError:
        raise
    except Exception as exc:  # the many ways in which metadata can be wrong
        raise ValueError(
            f"{path} cannot be opened as Zarr: {reason(exc)}. It is damaged or of an unknown kind."
        ) from exc
    if isinstance(node, zarr.Array) and 0 in (getattr(node, "chunks", None) or ()):
        raise ValueError(f"{path} is damaged: its chunks {node.chunks} have no pixels. Copy the store again.")
    if isinstance(node, zarr.Array) and prod(node.shape) * node.dtype.itemsize > sys.maxsize:
        raise ValueError(
            f"{path} is damaged: it claims a shape of {node.shape}, more than any computer can address. Copy the store "
            "again."
        )
    return node


def _open_level(path: Path, level: str) -> zarr.Array[Any]:
    import zarr

    if ".." in level.split("/") or level.startswith("/"):
        raise ValueError(f"{path} is damaged: its image {level!r:.60} would lie outside it. Copy the store again.")
    try:
        missing = not is_zarr(path / level)
    except OSError:  # too long for a name
        missing = True
    if missing:
        raise ValueError(f"{path} is incomplete: its image {level!r:.60} is missing. Copy the store again.")
    node = _open(path / level)
    if not isinstance(node, zarr.Array):
        raise ValueError(f"{path} is damaged: {level!r} should be an array. Copy the store again.")
    return node


def _multiscales(group: Any) -> list[dict[str, Any]]:
    listed = _ome(dict(group.attrs)).get("multiscales")
    return [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []


def _datasets(multiscale: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    listed = multiscale.get("datasets")
    found = [d for d in listed if isinstance(d, dict) and "path" in d] if isinstance(listed, list) else []
    if not found:
        raise ValueError(f"{path} is damaged: its multiscales name no dataset. Give the path of an array inside it.")
    return found


def _image(
    array: zarr.Array[Any],
    path: Path,
    attributes: Mapping[str, Any],
    multiscale: dict[str, Any],
    dataset: dict[str, Any],
    axes: str | None,
) -> Volume:
    """Make a volume of one level of a multiscale image."""
    listed = multiscale.get("axes")
    listed = listed if isinstance(listed, list) else []
    described = [a if isinstance(a, dict) else {"name": str(a)} for a in listed]
    shape = tuple(array.shape)
    letters = axis_letters(described, shape)
    if letters is None:
        if len(shape) == 5 and not described:
            letters = "TCZYX"  # as 0.1 and 0.2 prescribed
        elif axes:
            letters = parse_axes(axes, shape)
        else:
            letters = guess_axes(shape, array.dtype)
    scale, translate = _transforms(dataset, multiscale, len(shape))
    units = tuple(unit_name(a.get("unit")) for a in described) if len(described) == len(shape) else ()
    ome = _ome(attributes)
    metadata: dict[str, Any] = {k: ome[k] for k in ("omero",) if isinstance(ome.get(k), dict)}
    note = attributes.get(NOTE)
    note = dict(note) if isinstance(note, dict) else {}
    before = str(note.pop("volume_axes", ""))
    metadata |= read_space(note.pop("space", None))
    if note:
        metadata[NOTE] = note
    channels = metadata.get("omero", {}).get("channels")
    channels = channels if isinstance(channels, list) and all(isinstance(c, dict) for c in channels) else []
    names = names_in(channels) if "C" in letters and len(channels) == shape[letters.index("C")] else ()
    volume = Volume(
        present(array, letters, letters, path),
        letters,
        scale,
        units,
        translate,
        _name(path),
        names,
        metadata,
        source=path,
    )
    return _as_before(volume, array, before)


def _as_before(volume: Volume, array: Any, before: str) -> Volume:
    """Show an image that this package wrote in the axes order it had, samples as S again."""
    stored = volume.axes.replace("C", "S") if "S" in before and "C" not in before else volume.axes
    if before == volume.axes or sorted(before) != sorted(stored):
        return volume
    order = [stored.index(a) for a in before]
    return replace(
        volume,
        data=present(array, stored, before, volume.source),
        axes=before,
        scale=tuple(volume.scale[i] for i in order),
        units=tuple(volume.units[i] for i in order),
        translate=tuple(volume.translate[i] for i in order),
        channel_names=volume.channel_names if "C" in before else (),
    )


def axis_letters(described: list[dict[str, Any]], shape: tuple[int, ...]) -> str | None:
    """Turn OME-Zarr axes into letters by name, else by type; None where that is not possible."""
    if len(described) != len(shape):
        return None
    letters = []
    space = "ZYX"[-sum(a.get("type") == "space" for a in described) :]
    by_type = {"time": "T", "channel": "C"}
    for axis in described:
        name, kind = str(axis.get("name", "")).upper(), axis.get("type")
        if name in AXES and len(name) == 1:
            letters.append(name)
        elif name in ("TIME", "CHANNEL"):
            letters.append(name[0])
        elif kind == "space" and space:
            letters.append(space[sum(a in "ZYX" for a in letters)])
        else:
            letters.append(by_type.get(str(kind), "?"))
    found = "".join(letters)
    return found if len(set(found)) == len(found) and set("YX") <= set(found) <= set(AXES) else None


def _transforms(
    dataset: dict[str, Any], multiscale: dict[str, Any], ndim: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Combine the transformations of a dataset with those of all datasets, in that order."""
    scale, translate = np.ones(ndim), np.zeros(ndim)
    for owner in (dataset, multiscale):
        listed = owner.get("coordinateTransformations")
        for step in listed if isinstance(listed, list) else []:
            kind = step.get("type") if isinstance(step, dict) else None
            values = _numbers(step.get(kind) if kind in ("scale", "translation") else [])
            if values.shape != (ndim,) or not np.isfinite(values).all():
                continue
            if kind == "scale" and (values != 0).all():
                scale, translate = scale * values, translate * values
            elif kind == "translation":
                translate = translate + values
    return tuple(scale.tolist()), tuple(translate.tolist())


def _numbers(value: Any) -> NDArray[np.float64]:
    """Return a list of numbers; an empty array where it is none."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)


def _plain(array: Any, path: Path, axes: str | None) -> Volume:
    """Make a volume of an array without OME metadata; xarray's and Zarr's own dimension names count."""
    shape = tuple(array.shape)
    attributes = array.attrs.asdict() if isinstance(array.metadata.attributes, dict) else {}
    names = attributes.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None) or ()
    names = names if isinstance(names, (list, tuple)) else ()
    letters = axis_letters([{"name": n} for n in names], shape)
    letters = letters or (parse_axes(axes, shape) if axes else guess_axes(shape, array.dtype))
    return Volume(present(array, letters, letters, path), letters, name=_name(path), source=path)
