"""Write NIfTI files block by block, with the header and the affine of the file that the image came from."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_ssdenoise.io._affine import FACTORS, MILLIMETERS, factor_to, known_affine
from napari_ssdenoise.io._units import is_time
from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.io._writer import Writer, remove, require_space, reserve
from napari_ssdenoise.io.nifti import DIMENSIONS, KEY, SIDECARS, base_name, pixel_sizes

_DTYPES: Final = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64", "complex64", "complex128"),
)
# Kinds that NIfTI lacks, and the smallest that holds their values.
_WIDER: Final = {"float16": "float32", "bool": "uint8"}
# Datatype code and bits of RGB and RGBA.
_COLOURS: Final = {3: (128, 24), 4: (2304, 32)}
_LONGEST: Final = 2**15 - 1


class NiftiWriter(Writer):
    """Write ``.nii`` or ``.nii.gz``; how the image was made has no place in one and is left out.

    An image that came from a NIfTI keeps its header, extensions, position and orientation, adjusted if pixels have
    become smaller or have moved; ``.bval`` and ``.bvec`` files are written beside it. Position and orientation of a
    DICOM series are kept as well, and those of either in a TIFF or OME-Zarr that this package wrote. Others get an
    affine in millimetres from pixel size and position. A ``.nii.gz`` is compressed when all voxels are there.
    """

    @property
    def _kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = self.like.metadata.get(KEY, {})
        return kept if "head" in kept else {}

    @property
    def stored_axes(self) -> str:
        like = self.like
        plain, samples = like.axes.replace("S", ""), "S" if "S" in like.axes else ""
        kept = self._kept
        # An image whose axes were renamed goes back into the dimensions that it came from.
        same = kept and plain.endswith("YX") and len(plain) == len(parse_head(kept["head"]).get_data_shape())
        if not same:
            plain = DIMENSIONS[: max(DIMENSIONS.index(a) for a in plain) + 1][::-1]
        return plain + samples

    def check(self) -> None:
        like = self.like
        if 0 in like.shape:
            raise ValueError(f"{self.path.name} cannot be written: an image {like.shape} has no pixels.")
        if "S" in like.axes and (like.sizes["S"] not in _COLOURS or like.dtype != np.uint8):
            raise ValueError(
                f"a NIfTI holds colours as 8-bit RGB or RGBA, not {like.sizes['S']} samples of {like.dtype}. "
                "Use a name that ends in .tif or .ome.zarr."
            )
        if like.dtype.name not in (*_DTYPES, *_WIDER):
            raise ValueError(f"NIfTI files hold {', '.join(_DTYPES)}, not {like.dtype}. Convert the image to float32.")
        for path, text in self._sidecars().items():
            if path.exists() and not self.overwrite and path.read_bytes() != text.encode():
                raise FileExistsError(
                    f"{path}, which belongs beside the output, exists and differs. Pass overwrite=True (--overwrite) "
                    "to replace it, or choose another name."
                )

    def _create(self) -> Any:
        head = self._head()
        size = len(head) + int(np.prod(self.stored_shape, dtype=np.int64)) * self._dtype.itemsize
        require_space(self.path, size)
        with self.partial.open("wb") as file:
            file.write(head)
            file.truncate(size)
        reserve(self.partial)
        return self._mapped(len(head))

    def _reopen(self) -> Any | None:
        """Take up a partial file that was begun with exactly this header."""
        head = self._head()
        size = len(head) + int(np.prod(self.stored_shape, dtype=np.int64)) * self._dtype.itemsize
        with self.partial.open("rb") as file:
            same = file.read(len(head)) == head and self.partial.stat().st_size == size
        return self._mapped(len(head)) if same else None

    def _mapped(self, offset: int) -> Any:
        self._map = np.memmap(self.partial, self._dtype, "r+", offset, self.stored_shape)
        return self._map

    @property
    def _dtype(self) -> np.dtype[Any]:
        """Dtype in the file, in the byte order of the header that is kept."""
        plain = np.dtype(_WIDER.get(self.like.dtype.name, self.like.dtype))
        kept = self._kept
        return plain.newbyteorder(parse_head(kept["head"]).endianness if kept else "<")

    def _head(self) -> bytes:
        """Return all bytes before the voxels."""
        import nibabel

        kept = self._kept
        header = parse_head(kept["head"]) if kept else nibabel.Nifti1Header(endianness="<")
        tail = kept["head"][len(header.binaryblock) :] if kept else bytes(4)
        header["vox_offset"] = len(header.binaryblock) + len(tail)
        shape = tuple(n for a, n in zip(self.stored_axes, self.stored_shape, strict=True) if a != "S")[::-1]
        if max(shape) > _LONGEST and len(header.binaryblock) < len(nibabel.Nifti2Header().binaryblock):
            header = _longer(header, len(tail))
        if tuple(header.get_data_shape()) != shape:
            header.set_data_shape(shape)
        self._set_dtype(header)
        if kept:
            self._adjust(header)
        else:
            self._place(header)
        block: bytes = header.binaryblock
        return block + tail

    def _set_dtype(self, header: Any) -> None:
        samples = self.like.sizes.get("S")
        if samples:
            header["datatype"], header["bitpix"] = _COLOURS[samples]
        elif header.get_data_dtype() != self._dtype:
            header.set_data_dtype(self._dtype)
        slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
        scaled = np.isfinite(slope) and slope != 0 and (slope, inter) != (1, 0)
        if scaled and not self._kept.get("stored"):
            header["scl_slope"], header["scl_inter"] = 1, 0

    def _adjust(self, header: Any) -> None:
        """Let the kept header say where the voxels are now, if their size or position has changed."""
        like = self.like
        steps, shift = np.ones(4), np.zeros(3)
        plain = self.stored_axes.replace("S", "")[::-1]
        for i, (axis, (size, unit)) in enumerate(zip(DIMENSIONS, pixel_sizes(header), strict=False)):
            if plain[i : i + 1] != axis or axis not in like.axes:
                continue  # the dimension was renamed, and its size in the header is still the best that is known
            at = like.axes.index(axis)
            factor = factor_to(like.units[at], unit)
            steps[i] = like.scale[at] * factor / size
            if i < 3:
                shift[i] = like.translate[at] * factor / size
        if (steps == 1).all() and not shift.any():
            return
        moved = np.diag([*steps[:3], 1.0])
        moved[:3, 3] = shift
        pixdim = [abs(size * step) for (size, _), step in zip(pixel_sizes(header), steps, strict=True)]
        sform, qform = int(header["sform_code"]), int(header["qform_code"])
        if qform:
            header.set_qform(header.get_qform() @ moved, qform)
        if sform:
            header.set_sform(header.get_sform() @ moved, sform)
        header["pixdim"][1:5] = pixdim

    def _place(self, header: Any) -> None:
        """Give an image from another kind of file an affine in millimetres."""
        like = self.like
        affine, known = np.eye(4), known_affine(like)
        space, time = "unknown" if known is None else "mm", "unknown"
        for axis, scale, unit, start in zip(like.axes, like.scale, like.units, like.translate, strict=True):
            factor = FACTORS.get(unit or "", 1.0)
            if axis in "XYZ":
                i = DIMENSIONS.index(axis)
                affine[i, i], affine[i, 3] = scale * factor, start * factor
                space = "mm" if unit in MILLIMETERS else space
            elif axis == "T":
                header["pixdim"][4] = abs(scale * factor)
                time = "sec" if is_time(unit) else time
        code = 2
        if known is not None:
            affine, code = known
        header.set_qform(affine, code)
        header.set_sform(affine, code)
        header.set_xyzt_units(space, time)

    def _complete(self, provenance: dict[str, Any]) -> None:
        self._map.flush()
        self.array = None
        del self._map
        if not self.path.name.lower().endswith(".gz"):
            return
        packed = self.partial.with_name(self.partial.name + ".gz")
        try:
            # Without name and time, so that the same image gives the same bytes.
            with (
                self.partial.open("rb") as source,
                packed.open("wb") as file,
                gzip.GzipFile("", "wb", 6, file, mtime=0) as target,
            ):
                shutil.copyfileobj(source, target, 2**20)
            packed.replace(self.partial)
        except BaseException:
            remove(packed)
            raise

    def publish(self) -> Path:
        """Give the file its name, and write the diffusion weightings beside it."""
        path = super().publish()
        for beside, text in self._sidecars().items():
            with written_whole(beside) as partial:
                partial.write_bytes(text.encode())
        return path

    def _sidecars(self) -> dict[Path, str]:
        """Return the files that belong beside the output: those of as many weightings as it has volumes."""
        kept = self._kept
        shape = self.stored_shape[:-1] if "S" in self.like.axes else self.stored_shape
        if len(shape) != 4 or len(kept.get("bval", "").split()) != shape[0]:
            return {}
        return {self.path.with_name(f"{base_name(self.path)}.{k}"): kept[k] for k in SIDECARS if k in kept}


def parse_head(head: bytes) -> Any:
    """Return the header at the beginning of a NIfTI's bytes, as it is."""
    import nibabel

    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    kind: Any = nibabel.Nifti1Header if 348 in sizes else nibabel.Nifti2Header
    return kind(head[: kind.template_dtype.itemsize], check=False)


def _longer(header: Any, tail: int) -> Any:
    """Copy a NIfTI-1 header into one of NIfTI-2, which counts further."""
    import nibabel

    longer = nibabel.Nifti2Header(endianness=header.endianness)
    for name in set(header.keys()) & set(longer.keys()) - {"sizeof_hdr", "magic", "vox_offset"}:
        longer[name] = header[name]
    longer["vox_offset"] = len(longer.binaryblock) + tail
    return longer
