"""Write TIFF files block by block through a memory map: ImageJ hyperstacks where they fit, else OME-TIFF."""

from __future__ import annotations

import json
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from napari_ssdenoise.io._affine import space_of
from napari_ssdenoise.io._channels import channels_of, color_of, names_in, ome_color, to_imagej
from napari_ssdenoise.io._units import escaped, is_time, unit_symbol
from napari_ssdenoise.io._writer import NOTE, Writer, require_space, reserve

# Classic TIFF counts bytes in 32 bits, and some readers take them as signed.
CLASSIC_LIMIT = 2**31
_OME_DTYPES = (
    *("uint8", "uint16", "uint32", "int8", "int16", "int32"),
    *("float32", "float64", "complex64", "complex128"),
)
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")


class TiffWriter(Writer):
    """Write an uncompressed TIFF.

    A name ending in ``.ome.tif`` gives OME-TIFF. Others become ImageJ hyperstacks if dtype, size and units allow,
    and OME-TIFF otherwise; above 2 GB it is a BigTIFF. Pixel sizes are those of an image that is not flipped, as TIFF
    has no other.
    """

    @property
    def imagej(self) -> bool:
        """Whether the file is written as an ImageJ hyperstack."""
        like = self.like
        lengths = {u for a, u in zip(like.axes, like.units, strict=True) if a in "ZYX"}
        seconds = {u for a, u in zip(like.axes, like.units, strict=True) if a == "T"} <= {None, "second"}
        rgb = like.sizes.get("S") in (3, 4) and like.dtype == np.uint8 and "C" not in like.axes
        return (
            not self.path.name.lower().endswith((".ome.tif", ".ome.tiff"))
            and like.dtype.name in _IMAGEJ_DTYPES
            and like.nbytes < CLASSIC_LIMIT
            and min(like.sizes["Y"], like.sizes["X"]) > 1
            and len(lengths) == 1
            and seconds
            and ("S" not in like.axes or rgb)
        )

    @property
    def stored_axes(self) -> str:
        order = "TZC" if self.imagej else [a for a in self.like.axes if a in "TZC"]
        return "".join(a for a in (*order, "Y", "X", "S") if a in self.like.axes)

    def check(self) -> None:
        like = self.like
        if like.dtype.name not in _OME_DTYPES:
            raise ValueError(
                f"TIFF files hold {', '.join(_OME_DTYPES)}, not {like.dtype}. "
                "Write .ome.zarr or .npy, or convert the image to float32."
            )
        if 0 in like.shape:
            raise ValueError(f"{self.path.name} cannot be written: an image {like.shape} has no pixels.")

    def _create(self) -> Any:
        import tifffile

        like = self.like
        require_space(self.path, like.nbytes)
        rgb = like.sizes.get("S") in (3, 4)
        options: dict[str, Any] = {"ome": False, "imagej": True} if self.imagej else {"ome": True}
        if self.imagej:
            options |= {"metadata": self._imagej_metadata(), "resolution": self._resolution(), "resolutionunit": 1}
        else:
            options |= {"metadata": self._ome_metadata(), "bigtiff": like.nbytes >= CLASSIC_LIMIT}
        if "S" in like.axes:
            options["planarconfig"] = "contig"
        array = tifffile.memmap(
            self.partial,
            shape=self.stored_shape,
            dtype=like.dtype,
            byteorder="<",
            photometric="rgb" if rgb else "minisblack",
            software="napari-ssdenoise",
            **options,
        )
        reserve(self.partial)
        self._map = array.reshape(self.stored_shape)
        return self._map

    def _reopen(self) -> Any | None:
        """Take up a partial file that was begun with exactly this description."""
        import tifffile

        try:
            with tifffile.TiffFile(self.partial) as tif:
                series = tif.series[0]
                offset, order = series.dataoffset, tif.byteorder
                same = (
                    tif.is_imagej == self.imagej
                    and offset is not None
                    and series.dtype == self.like.dtype
                    and int(np.prod(series.shape)) == int(np.prod(self.like.shape))
                    and any(note in tif.pages.first.description for note in (*self._notes(), *self._begun_notes()))
                )
        except Exception:  # any damage means: start afresh
            return None
        if not same or offset is None:
            return None
        dtype = np.dtype(self.like.dtype.newbyteorder(order))
        self._map = np.memmap(self.partial, dtype, "r+", offset, self.stored_shape)
        return self._map

    def _note(self, provenance: dict[str, Any] | None = None) -> str:
        like = self.like
        note: dict[str, Any] = {"axes": like.axes, "shape": like.shape}
        if any(like.translate):
            note["translate"] = like.translate
        space = space_of(like)
        if space:
            note["space"] = space
        return json.dumps(note | ({"provenance": provenance} if provenance else {}))

    def _notes(self) -> tuple[str, str]:
        """Return the note in the two ways in which it may stand in a description."""
        return self._note(), escape(self._note(), {'"': "&quot;"})

    def _begun_notes(self) -> tuple[str, str]:
        """Return how the note begins if it was being completed when the process was killed."""
        begun = self._note()[:-1] + ', "provenance": '
        return begun, escape(begun)

    def _by_axis(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.like.axes, values, strict=True))

    def _resolution(self) -> tuple[float, float]:
        scale = self._by_axis(self.like.scale)
        # The tag holds no larger number; the note has every one.
        along_x, along_y = (1 / max(abs(scale[axis]), 2.0**-31) for axis in "XY")
        return along_x, along_y

    def _imagej_metadata(self) -> dict[str, Any]:
        like = self.like
        scale, units, translate = (self._by_axis(v) for v in (like.scale, like.units, like.translate))
        unit = units["X"]
        metadata = {"axes": self.stored_axes, "unit": "um" if unit == "micrometer" else unit_symbol(unit) or unit}
        metadata["unit"] = escaped(metadata["unit"] or "pixel")
        metadata |= {f"{a.lower()}origin": -translate[a] / abs(scale[a]) for a in "XYZ" if translate.get(a)}
        if "Z" in scale:
            metadata["spacing"] = abs(scale["Z"])
        if "T" in scale and (scale["T"] != 1 or units["T"]):
            metadata["finterval"] = scale["T"]
        return metadata | to_imagej(like) | {NOTE: self._note()}

    def _ome_metadata(self) -> dict[str, Any]:
        like = self.like
        metadata: dict[str, Any] = {"axes": self.stored_axes, "Name": _xml_text(like.name)}
        for axis, scale, unit in zip(like.axes, map(abs, like.scale), like.units, strict=True):
            if axis in "ZYX" and (scale != 1 or unit):
                metadata |= {f"PhysicalSize{axis}": scale, f"PhysicalSize{axis}Unit": unit_symbol(unit) or "pixel"}
            elif axis == "T" and (scale != 1 or unit):
                metadata |= {"TimeIncrement": scale, "TimeIncrementUnit": unit_symbol(unit) if is_time(unit) else "s"}
        channels = channels_of(like)
        if "S" not in like.axes or "C" in like.axes:
            colors = [color_of(c) for c in channels]
            fields: dict[str, Any] = {"Name": [_xml_text(name) for name in names_in(channels)]}
            fields["Color"] = [ome_color(c) for c in colors if c] if all(colors) else []
            metadata["Channel"] = {k: v for k, v in fields.items() if v}
        metadata["MapAnnotation"] = {"Namespace": "napari-ssdenoise", NOTE: self._note()}
        return metadata

    def _complete(self, provenance: dict[str, Any]) -> None:
        import tifffile

        base: Any = self._map
        while not isinstance(base, np.memmap):
            base = base.base
        base.flush()
        del base, self._map
        if not provenance:
            return
        with tifffile.TiffFile(self.partial, mode="r+") as tif:
            tag = tif.pages.first.tags[270]
            new = self._note(provenance)
            text = str(tag.value)
            for old in self._notes():
                text = text.replace(old, new if self.imagej else escape(new))
            # The OME description holds µ, so it is written as bytes of UTF-8.
            tag.overwrite(text.encode("utf-8"))


def _xml_text(text: str) -> str:
    """Leave out of a name what an XML attribute cannot hold, or some versions of tifffile do not escape."""
    return "".join(c for c in text.replace('"', "'") if c.isprintable())
