"""Write OME-Zarr 0.5 block by block, its pyramid with it, its metadata at the end."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io import _pyramid
from napari_ssdenoise.io._affine import space_of
from napari_ssdenoise.io._channels import channels_of, color_of, window_of
from napari_ssdenoise.io._units import is_length, is_time
from napari_ssdenoise.io._writer import NOTE, Writer

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray
    from yaozarrs import v05

    from napari_ssdenoise.axes import Region

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF", "FFFFFF")
# Pixels looked at to choose the contrast of a channel that has none.
_SAMPLE = 2**20
_SIDE = 2048


class OmeZarrWriter(Writer):
    """Write an OME-Zarr image: Zarr format 3, axes in the order T C Z Y X.

    The samples of RGB become channels called Red, Green and Blue, as the format has no other place for them.
    """

    @property
    def stored_axes(self) -> str:
        return "".join(a for a in ("T", "C", "S", "Z", "Y", "X") if a in self.like.axes)

    @property
    def _letters(self) -> str:
        return self.stored_axes.replace("S", "C")

    def check(self) -> None:
        like = self.like
        if "S" in like.axes and "C" in like.axes:
            raise ValueError(
                f"OME-Zarr has one channel axis, but the image has both C and S (RGB): {like.axes!r}. "
                "Write .ome.tif, or one channel at a time."
            )
        if like.dtype.kind not in "uifc":
            raise ValueError(
                f"{self.path.name} cannot be written: an OME-Zarr image holds integers, floats or complex numbers, not "
                f"{like.dtype}."
            )
        if 0 in like.shape:
            raise ValueError(f"{self.path.name} cannot be written: an image {like.shape} has no pixels.")

    def _stored(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        by_axis = dict(zip(self.like.axes, values, strict=True))
        return tuple(by_axis[a] for a in self.stored_axes)

    def _create(self) -> Any:
        import zarr

        # zarr makes missing folders itself; a missing permission should show here, with the folder's name.
        self.partial.mkdir()
        self._group = zarr.create_group(str(self.partial), zarr_format=3)
        levels = zip(self._levels, self._streamed, strict=False)
        self._arrays = [self._array(level, chunks) for (level, _), chunks in levels]
        return self._arrays[0]

    @cached_property
    def _levels(self) -> list[tuple[_pyramid.Level, tuple[int, ...]]]:
        """All resolutions."""
        like = self.like
        return _pyramid.plan(self._letters, self.stored_shape, self._stored(like.scale), self._stored(like.translate))

    @cached_property
    def _streamed(self) -> list[tuple[int, ...]]:
        """Chunks of the resolutions that are filled block by block; at least the full one."""
        chunks = self._stored(self.chunks)
        if self.grid is None:
            return [chunks]
        return _pyramid.streamed_chunks(self._levels, chunks, self._stored(self.grid))

    def _array(self, level: _pyramid.Level, chunks: tuple[int, ...]) -> zarr.Array[Any]:
        from zarr.codecs import BloscCodec

        dtype = self.like.dtype
        return self._group.create_array(
            level.path,
            shape=level.shape,
            dtype=dtype,
            chunks=tuple(min(c, n) for c, n in zip(chunks, level.shape, strict=True)),
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=dtype.itemsize),
            dimension_names=list(self._letters.lower()),
            fill_value=0,
            overwrite=True,
        )

    def _reopen(self) -> Any | None:
        import zarr

        try:
            self._group = zarr.open_group(str(self.partial), mode="r+")
            arrays = [self._group[level.path] for (level, _), _ in zip(self._levels, self._streamed, strict=False)]
        except Exception:  # any damage means: start afresh
            return None
        for array, (level, _), chunks in zip(arrays, self._levels, self._streamed, strict=False):
            wanted = (level.shape, self.like.dtype, tuple(min(c, n) for c, n in zip(chunks, level.shape, strict=True)))
            if not isinstance(array, zarr.Array) or (array.shape, array.dtype, array.chunks) != wanted:
                return None
        self._arrays = [array for array in arrays if isinstance(array, zarr.Array)]
        return self._arrays[0]

    def write(self, region: Region, block: NDArray[Any]) -> None:
        super().write(region, block)
        order = [self.like.axes.index(axis) for axis in self.stored_axes]
        block = np.transpose(block, order)
        place = [slice(*region[i].indices(self.like.shape[i])[:2]) for i in order]
        for (_, factors), above, array in zip(self._levels[1:], self._arrays, self._arrays[1:], strict=False):
            whole = _pyramid.aligned(place, factors, above.shape)
            if whole != place:  # a tile that was cut because memory ran out shares pixels with its other half
                block = np.asarray(above[tuple(whole)])
            block = _pyramid.halve(block, factors)
            place = [slice(s.start // f, -(-s.stop // f)) for s, f in zip(whole, factors, strict=True)]
            array[tuple(place)] = block

    def _complete(self, provenance: dict[str, Any]) -> None:
        for left in self.partial.rglob("*.partial"):  # of chunks that were being written when a process was killed
            left.unlink(missing_ok=True)
        arrays = self._arrays
        for level, factors in self._levels[len(arrays) :]:
            arrays.append(self._array(level, self._stored(self.chunks)))
            _pyramid.fill(arrays[-2], arrays[-1], factors)
        space = space_of(self.like)
        note = {**provenance, "volume_axes": self.like.axes} | ({"space": space} if space else {})
        image = self._image([level for level, _ in self._levels], arrays[-1])
        self._group.attrs.update(
            {
                "ome": image.model_dump(mode="json", exclude_none=True),
                NOTE: note,
            }
        )

    def _image(self, levels: list[_pyramid.Level], smallest: zarr.Array[Any]) -> v05.Image:
        """Describe the image in validated OME-Zarr metadata."""
        from yaozarrs import v05

        datasets = []
        for level in levels:
            steps: list[Any] = [v05.ScaleTransformation(scale=list(level.scale))]
            if any(level.translate):
                steps.append(v05.TranslationTransformation(translation=list(level.translate)))
            datasets.append(v05.Dataset(path=level.path, coordinateTransformations=steps))
        multiscale = v05.Multiscale.model_validate(
            {
                "name": self.like.name,
                "axes": [self._axis(a, u) for a, u in zip(self._letters, self._stored(self.like.units), strict=True)],
                "datasets": datasets,
                "type": "mean",
            }
        )
        return v05.Image(multiscales=[multiscale], omero=self._omero(smallest))

    @staticmethod
    def _axis(letter: str, unit: str | None) -> dict[str, str]:
        kind = _TYPES[letter]
        axis = {"name": letter.lower(), "type": kind}
        if unit and ((kind == "space" and is_length(unit)) or (kind == "time" and is_time(unit))):
            axis["unit"] = unit
        return axis

    def _omero(self, smallest: zarr.Array[Any]) -> v05.Omero:
        """Describe how to show the channels: what the source said, else contrast from the smallest level."""
        from yaozarrs import v05

        channels = []
        known = channels_of(self.like)
        for i, channel in enumerate(known):
            label = str(channel.get("label") or (self.like.name if len(known) == 1 else f"channel {i}"))
            color = color_of(channel) or ("FFFFFF" if len(known) == 1 else _COLORS[i % len(_COLORS)])
            window = window_of(channel) or self._window(smallest, i)
            channels.append(v05.OmeroChannel(label=label, color=color, window=v05.OmeroWindow(**window), active=True))
        return v05.Omero(channels=channels)

    def _window(self, smallest: zarr.Array[Any], channel: int) -> dict[str, float]:
        """Choose a contrast window that fits the middle plane as it is, and the whole depth at low resolution."""
        if self.like.dtype == np.uint8 and "S" in self.like.axes:
            return {"start": 0.0, "end": 255.0, "min": 0.0, "max": 255.0}
        full: Any = self._group["0"]
        depth = max(1, _SAMPLE // (smallest.shape[-1] * smallest.shape[-2]))
        found = [
            np.percentile(sample, (0, 0.1, 99.9, 100))
            for sample in (self._sample(full, channel, 1), self._sample(smallest, channel, depth))
            if sample.size
        ]
        if not found:
            return {"start": 0.0, "end": 1.0, "min": 0.0, "max": 1.0}
        low, start = (float(min(f[i] for f in found)) for i in (0, 1))
        end, high = (float(max(f[i] for f in found)) for i in (2, 3))
        end = end if end > start else start + 1
        if self.like.dtype.kind in "iu":
            info = np.iinfo(self.like.dtype)
            low, high = float(info.min), float(info.max)
        return {"start": start, "end": end, "min": min(low, start), "max": max(high, end)}

    def _sample(self, array: zarr.Array[Any], channel: int, depth: int) -> NDArray[np.float64]:
        """Read the finite pixels around the centre of one channel, at the middle time point."""
        counts = {"T": 1, "Z": depth, "Y": _SIDE, "X": _SIDE}
        key = []
        for letter, n in zip(self._letters, array.shape, strict=True):
            count = min(n, counts.get(letter, n))
            start = channel if letter == "C" else (n - count) // 2
            key.append(slice(start, start + (1 if letter == "C" else count)))
        block = np.asarray(array[tuple(key)])
        sample = (np.abs(block) if block.dtype.kind == "c" else block).astype(np.float64)
        return sample[np.isfinite(sample)]
