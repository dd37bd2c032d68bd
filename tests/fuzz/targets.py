"""What is spoiled and what must then hold: for each kind of input, one function that makes one case and checks it.

`Target.make` writes sound examples once; `Target.check` takes one of them, spoils a copy, and uses it as people would.
What is wrong must end in an error that the command line turns into one line, which names the file.
"""

from __future__ import annotations

import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import damage
import numpy as np

CLEAR = (ValueError, OSError, MemoryError)
LARGEST = 2**22  # bytes that a case reads and writes as a whole


class UnclearError(AssertionError):
    """A case did not end as it must."""


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    check: Callable[[Path, Path, random.Random], str]
    make: Callable[[Path], None] = lambda folder: None
    share: int = 1  # of the cases


def clear(error: BaseException, names: tuple[str, ...]) -> str:
    """Check an error's words, and return what kind it is."""
    text = str(error)
    if not isinstance(error, CLEAR):
        raise UnclearError(f"{type(error).__name__}: {text}") from error
    if len(text) > 3000 or not text.strip():
        raise UnclearError(f"an error of {len(text)} characters: {text[:200]!r}") from error
    if not any(name in text for name in names) and not isinstance(error, MemoryError):
        raise UnclearError(f"does not name the file: {type(error).__name__}: {text[:300]}") from error
    return type(error).__name__


# Images -----------------------------------------------------------------------------------------------------------


def _image(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).poisson(90, shape)
    return values.astype(dtype)


def _volume(axes: str, shape: tuple[int, ...], dtype: str = "uint16") -> Any:
    from napari_ssdenoise.volume import Volume

    units = tuple("micrometer" if axis in "ZYX" else None for axis in axes)
    return Volume(_image(shape, dtype), axes, tuple(0.5 for _ in axes), units)


def make_tiff(folder: Path) -> None:
    import tifffile

    from napari_ssdenoise.io import write_volume

    write_volume(folder / "ours.ome.tif", _volume("TCZYX", (2, 2, 3, 12, 10)))
    write_volume(folder / "ours.tif", _volume("ZYX", (3, 16, 12), "float32"))
    tifffile.imwrite(
        folder / "imagej.tif", _image((3, 2, 16, 12)), imagej=True, metadata={"axes": "ZCYX", "unit": "um"}
    )
    tifffile.imwrite(folder / "rgb.tif", _image((20, 24, 3), "uint8"), photometric="rgb", compression="lzw")
    tifffile.imwrite(folder / "tiled.tif", _image((2, 40, 40)), tile=(16, 16), compression="zlib", predictor=True)
    tifffile.imwrite(folder / "big.tif", _image((2, 20, 20)), bigtiff=True, compression="zstd", rowsperstrip=5)
    tifffile.imwrite(folder / "jpeg.tif", _image((32, 32), "uint8"), compression="jpeg", byteorder=">")
    tifffile.imwrite(folder / "packbits.tif", _image((16, 16), "uint8"), compression="packbits")


def make_npy(folder: Path) -> None:
    np.save(folder / "a.npy", _image((3, 10, 12)))
    np.save(folder / "b.npy", np.asfortranarray(_image((9, 8), "float64")))
    np.save(folder / "c.npy", _image((6, 7, 3), "uint8").astype(">u2"))
    np.save(folder / "d.npy", np.array([{"a": 1}, None], object), allow_pickle=True)


def make_png(folder: Path) -> None:
    from PIL import Image

    from napari_ssdenoise.io import write_volume

    write_volume(folder / "ours.png", _volume("YX", (16, 12)))
    Image.fromarray(_image((12, 10, 3), "uint8")).save(folder / "rgb.png")
    Image.fromarray(_image((12, 10, 3), "uint8")).quantize(8).save(folder / "palette.png")
    Image.fromarray(_image((16, 16, 3), "uint8")).save(folder / "photo.jpg")


def make_zarr(folder: Path) -> None:
    import zarr

    from napari_ssdenoise.io import write_volume

    write_volume(folder / "five.ome.zarr", _volume("CZYX", (2, 3, 20, 16)))
    zarr.create_array(folder / "plain.zarr", data=_image((3, 12, 10)), chunks=(1, 8, 8), shards=(1, 16, 16))
    group = zarr.open_group(folder / "four.zarr", mode="w", zarr_format=2)
    array = group.create_array("0", data=_image((3, 16, 12)), chunks=(2, 8, 8))
    scale = [{"type": "scale", "scale": [0.5, 0.2, 0.2]}]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    datasets = [{"path": array.basename, "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def make_nifti(folder: Path) -> None:
    import nibabel

    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(_image((8, 7, 5), "int16"), affine), folder / "a.nii")
    scaled = nibabel.Nifti1Image(_image((6, 5, 4, 2)).astype("float32"), affine)
    scaled.set_data_dtype("uint8")
    nibabel.save(scaled, folder / "b.nii.gz")
    nibabel.save(nibabel.Nifti2Image(_image((6, 6, 4), "float32"), affine), folder / "c.nii")


def make_dicom(folder: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage, RLELossless

    for series, syntax in enumerate((ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless)):
        scan = folder / f"scan{series}"
        scan.mkdir()
        for number, plane in enumerate(_image((4, 14, 12), "int16")):
            dataset = Dataset()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.{series}.{number + 1}"
            dataset.SeriesInstanceUID, dataset.InstanceNumber, dataset.Modality = f"1.2.{series}", number + 1, "MR"
            dataset.Rows, dataset.Columns = plane.shape
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit, dataset.PixelRepresentation = 15, 1
            dataset.PixelSpacing, dataset.SliceThickness = [1.5, 0.9], 2.0
            dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * number]
            dataset.RescaleSlope, dataset.RescaleIntercept = 2, -7
            dataset.PixelData = plane.tobytes()
            dataset["PixelData"].VR = "OW"
            if syntax == RLELossless:
                dataset.compress(RLELossless)
            dataset.save_as(scan / f"{number}.dcm", enforce_file_format=True)


def check_image(examples: Path, scratch: Path, rng: random.Random) -> str:
    """Open a spoiled image, read it, and write it: the copy is whole, or nothing is left of it."""
    from napari_ssdenoise.io import write_volume
    from napari_ssdenoise.volume import open_volume

    chosen = rng.choice(sorted(p for p in examples.iterdir() if not p.name.startswith(".")))
    path = scratch / chosen.name
    _spoiled_copy(chosen, path, rng)
    names = (path.name, path.name.split(".")[0], str(scratch))
    try:
        volume = open_volume(path)
        if volume.nbytes > LARGEST:
            middle = tuple(slice(n // 2, n // 2 + 1) for n in volume.shape)
            volume = volume.like(np.asarray(volume[middle]))
        pixels = np.asarray(volume[...])
    except Exception as error:
        return clear(error, names)
    if pixels.shape != volume.shape:
        raise UnclearError(f"an image of shape {volume.shape} gives {pixels.shape}")
    target = scratch / rng.choice(("copy.npy", "copy.ome.zarr", "copy.tif"))
    try:
        write_volume(target, volume)
    except Exception as error:
        left = [p.name for p in scratch.iterdir() if "copy" in p.name]
        if left:
            raise UnclearError(f"a failed copy left {left}") from error
        return clear(error, (*names, "copy", "TIFF files"))
    copied = np.asarray(open_volume(target)[...])
    if copied.tobytes() != pixels.tobytes() and not np.array_equal(copied.ravel(), pixels.ravel(), equal_nan=True):
        raise UnclearError("the copy has other pixels")
    return "read"


def make_kspace(folder: Path) -> None:
    import h5py

    data = (_image((3, 2, 16, 12), "float32") + 1j * _image((3, 2, 16, 12), "float32")).astype(np.complex64)
    mask = np.arange(12) % 2 == 0
    header = (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace><matrixSize>'
        "<x>16</x><y>12</y><z>1</z></matrixSize><fieldOfView_mm><x>48</x><y>27</y><z>5</z></fieldOfView_mm>"
        "</encodedSpace><encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>11</maximum>"
        "<center>6</center></kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>"
        "</ismrmrdHeader>"
    )
    for name, options in {"plain.h5": {}, "packed.h5": {"compression": "gzip", "chunks": (1, 2, 16, 12)}}.items():
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("kspace", data=data * mask, **options)
            file["mask"], file["ismrmrd_header"] = mask, header
    np.save(folder / "a.npy", data)
    _make_ismrmrd(folder / "raw.mrd", data, header)


def _make_ismrmrd(path: Path, data: np.ndarray[Any, Any], header: str) -> None:
    import ismrmrd

    dataset = ismrmrd.Dataset(str(path), "dataset", mode="w")
    dataset.write_xml_header(header.encode())
    for number in range(len(data)):
        for line in range(data.shape[3]):
            acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data[number, :, :, line]))
            acquisition.idx.slice, acquisition.idx.kspace_encode_step_1 = number, line
            acquisition.center_sample = data.shape[2] // 2
            dataset.append_acquisition(acquisition)
    dataset.close()


def check_kspace(examples: Path, scratch: Path, rng: random.Random) -> str:
    """Open spoiled raw data, and read a slice.

    Of HDF5, the end is lost, or what it holds is changed: within its trees of pointers the library itself hangs, as
    SciPy's crashes within MATLAB files, which are not tried here.
    """
    from napari_ssdenoise.io.kspace import open_kspace

    chosen = rng.choice(sorted(examples.iterdir()))
    path = scratch / chosen.name
    if chosen.suffix == ".npy":
        _spoiled_copy(chosen, path, rng)
    else:
        _spoil_hdf5(chosen, path, rng)
    try:
        kspace = open_kspace(path)
        if 8 * prod(kspace.shape[1:]) > LARGEST:
            return "large"
        data, mask = kspace.read(len(kspace) - 1)
    except Exception as error:
        return clear(error, (path.name, path.stem))
    if data.shape != kspace.shape[1:] or mask.shape != kspace.shape[2:]:
        raise UnclearError(f"k-space of shape {kspace.shape} gives {data.shape} and {mask.shape}")
    return "read"


def _spoil_hdf5(chosen: Path, path: Path, rng: random.Random) -> None:
    """Cut a file off, or change its arrays, acquisitions and header."""
    import h5py

    data = chosen.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(data[: rng.randrange(len(data))] + rng.choice((b"", bytes(200), rng.randbytes(200))))
        return
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        name = rng.choice(names)
        values = file[name][()]
        if getattr(values, "dtype", None) is not None and values.dtype.names:
            head, at = values["head"], rng.randrange(len(values))
            field = rng.choice(head.dtype.names)
            if head.dtype[field].kind in "iu":
                limits = np.iinfo(head.dtype[field].base)
                head[field][at] = rng.choice((0, 1, 3, 200, limits.max, limits.min))
            else:
                head["idx"][rng.choice(head["idx"].dtype.names)][at] = rng.choice((0, 5, 40, 65535))
            file[name][...] = values
            return
        del file[name]
        kind = rng.randrange(5)
        if isinstance(values, (bytes, np.ndarray)) and kind == 0:
            text = values if isinstance(values, bytes) else values.tobytes()
            file[name] = damage.spoil_bytes(text[:3000], rng).replace(b"\0", b"?") or b"?"
        elif isinstance(values, np.ndarray) and values.dtype.kind == "c" and kind < 3:
            values.ravel()[rng.randrange(values.size)] = rng.choice((np.nan, np.inf, 3e38, 0))
            file[name] = values
        elif kind < 4:
            shapes = ((), (0,), (1,), (2, 0, 3), (12,), (16,), (3, 16, 12), (2, 3, 4, 5, 6))
            file[name] = np.ones(rng.choice(shapes), rng.choice(("c8", "f4", "i1", "S3", "bool")))


def _spoiled_copy(chosen: Path, path: Path, rng: random.Random) -> None:
    if chosen.is_dir():
        shutil.copytree(chosen, path)
        damage.spoil_folder(path, rng)
    elif path.name.endswith(".gz") and rng.random() < 0.6:
        import gzip

        path.write_bytes(gzip.compress(damage.spoil_bytes(gzip.decompress(chosen.read_bytes()), rng), 1))
    else:
        path.write_bytes(damage.spoil_bytes(chosen.read_bytes(), rng))


# Models -----------------------------------------------------------------------------------------------------------


def make_models(folder: Path) -> None:
    import napari_ssdenoise as ssd

    image = _image((24, 24)).astype("float32")
    tiny = {"width": 4, "patch": 16, "batch": 1}
    for key, values in {"zs-n2n": {}, "n2v": {"depth": 1}, "blindspot": {"depth": 1, "from_scratch": True}}.items():
        trainer = ssd.Trainer(ssd.get_algorithm(key, **tiny, **values), image, steps=2, device="cpu", seed=0)
        for _ in trainer:
            pass
        trainer.model.save(folder / f"{key}.model")
        trainer.model.save(folder / f"{key}.zip")


def check_model(examples: Path, scratch: Path, rng: random.Random) -> str:
    """List, load and describe a spoiled model, denoise with it, and save it again."""
    from napari_ssdenoise.io.library import Shelved
    from napari_ssdenoise.model import TrainedModel

    chosen = rng.choice(sorted(examples.iterdir()))
    path = scratch / chosen.name
    trap = scratch / "outside"
    trap.mkdir()
    if chosen.suffix == ".zip":
        _spoil_archive(chosen, path, rng)
    else:
        shutil.copytree(chosen, path)
        damage.spoil_folder(path, rng)
        if rng.random() < 0.3:
            _spoil_weights(path / "weights.safetensors", rng)
    try:
        Shelved.read(path)
    except Exception as error:
        clear(error, (path.name, "the model"))
    try:
        model = TrainedModel.load(path)
        model.describe()
        model.differences(_image((20, 16)))
        clean = model.predict(_image((20, 16)), device="cpu", precision="float32")
    except Exception as error:
        outcome = clear(error, (path.name, "the model", "channels", "the image has axes", "tile"))
    else:
        if not np.isfinite(clean).all():
            raise UnclearError("a model gives values that are not finite")
        model.save(scratch / "again.model")
        TrainedModel.load(scratch / "again.model")
        outcome = "loaded"
    if any(trap.iterdir()) or (scratch.parent / "evil").exists():
        raise UnclearError("a file was written outside the model")
    return outcome + _info(path)


def _info(path: Path) -> str:
    """Ask the program about the model: it must not show a traceback."""
    from click.testing import CliRunner

    from napari_ssdenoise.cli import program

    result = CliRunner().invoke(program, ["info", str(path), "--json"])
    if result.exit_code not in (0, 1):
        raise UnclearError(f"info: {result.exception!r}") from result.exception
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise UnclearError(f"info: {result.exception!r}") from result.exception
    return f", info {result.exit_code}"


def _spoil_archive(chosen: Path, path: Path, rng: random.Random) -> None:
    """Spoil an archive as a whole, its members, or its table of contents."""
    kind = rng.random()
    if kind < 0.35:
        path.write_bytes(damage.spoil_bytes(chosen.read_bytes(), rng))
        return
    with zipfile.ZipFile(chosen) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if kind < 0.7:
        name = rng.choice(sorted(members))
        scratch = path.with_name(name)
        scratch.write_bytes(members[name])
        (_spoil_weights if name.endswith("tensors") and rng.random() < 0.6 else damage.spoil_file)(scratch, rng)
        members[name] = scratch.read_bytes()
        scratch.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if kind < 0.7 or rng.random() < 0.7:
                archive.writestr(name, data)
        if kind >= 0.7:
            _add_hostile(archive, rng)


def _add_hostile(archive: zipfile.ZipFile, rng: random.Random) -> None:
    """Add a member that leads elsewhere, is a link, is there twice, or is far too large."""
    kind = rng.randrange(5)
    if kind == 0:
        archive.writestr(rng.choice(("../evil", "../../evil", "/tmp/ssdenoise-evil", "..\\evil", "outside/evil")), b"x")
    elif kind == 1:
        link = zipfile.ZipInfo(rng.choice(("model.json", "weights.safetensors")))
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "../outside")
    elif kind == 2:
        archive.writestr("model.json", rng.choice((b"[]", b"{}", b"\xff\xfe", b'{"format": "napari-ssdenoise model"}')))
    elif kind == 3:
        archive.writestr("weights.safetensors", bytes(2**24))
    else:
        archive.writestr("model.json", b"[" * 100_000)


def _spoil_weights(path: Path, rng: random.Random) -> None:
    """Spoil tensors: not finite, of other shapes, dtypes and names, or with a header that claims too much."""
    if not path.is_file():
        return
    kind = rng.randrange(5)
    if kind == 0:
        data = path.read_bytes()
        claimed = rng.choice((0, 1, 2**20, 2**31, 2**40, 2**62, 2**64 - 1))
        path.write_bytes(claimed.to_bytes(8, "little") + data[8:])
        return
    from safetensors.numpy import load, save_file

    try:
        tensors = load(path.read_bytes())
    except Exception:  # spoiled already
        return
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    if kind == 1 and value.dtype.kind == "f":
        tensors[name] = value.copy()
        tensors[name].ravel()[:1] = rng.choice((np.nan, np.inf, 3e38))
    elif kind == 2:
        tensors[name] = rng.choice(
            (value[..., None], value.ravel()[:-1], np.zeros(value.shape, "int8"), value.ravel()[:0])
        )
    elif kind == 3:
        tensors[name + "x"] = tensors.pop(name)
    else:
        tensors = {name: value}
    save_file(tensors, path)


# Words and geometry -----------------------------------------------------------------------------------------------


def check_axes(examples: Path, scratch: Path, rng: random.Random) -> str:
    """Give arrays of any shape axes of any kind: a layout reads back what it wrote, or says what is wrong."""
    from napari_ssdenoise.axes import Layout, guess_axes
    from napari_ssdenoise.volume import Volume, require_intensities

    shape = tuple(rng.choice((0, 1, 2, 3, 4, 9)) for _ in range(rng.randrange(8)))
    letters = "".join(rng.choice("TCZYXSTCZYXSzyxQ é") for _ in range(rng.choice((len(shape), rng.randrange(8)))))
    if rng.random() < 0.7:
        letters = "".join(rng.sample("TCZYXS", min(6, len(shape))))
    spatial = rng.choice((None, None, "YX", "ZYX", "TYX", "XY", "Y", "", "YXS", "CYX", "TZYX", "YY", "q"))
    try:
        axes = guess_axes(shape, "uint8") if rng.random() < 0.3 else letters
        volume = Volume(np.zeros(shape, rng.choice(("uint8", "float32", "bool", "complex64", "U1"))), axes)
        require_intensities(volume)
        layout = Layout.choose(volume.axes, shape, spatial, rng.choice(("auto", "joint", "independent")))
    except Exception as error:
        return clear(error, ("axes", "axis", "shape", "mask", "complex", "dtype"))
    data = np.arange(prod(shape)).reshape(shape)
    out = np.full(shape, -1)
    whole = tuple(slice(0, n) for n in layout.spatial_shape(shape))
    for index in layout.indices(shape):
        out[layout.key(index, whole)] = layout.from_network(layout.read(data, index, whole))
    if not np.array_equal(out, data):
        raise UnclearError(f"{layout} of {shape} does not give back what it reads")
    return "laid out"


def check_tiles(examples: Path, scratch: Path, rng: random.Random) -> str:
    """Cut images of any size into tiles: every pixel is written once, from an input that is on the grid and inside."""
    from napari_ssdenoise.engine.tiles import TilePlan, choose_tile

    dims = rng.choice((1, 2, 3))
    shape, halo = (tuple(rng.randrange(low, 40) for _ in range(dims)) for low in (1, 0))
    stride = tuple(rng.choice((1, 2, 4, 8)) for _ in range(dims))
    try:
        if rng.random() < 0.5:
            tile = choose_tile(shape, halo, stride, rng.choice((1, 500, 10**4, 10**9)))
        else:
            tile = tuple(rng.randrange(-1, 45) for _ in range(dims))
        plan = TilePlan(shape, tile, halo, stride, rng.choice((0, 4, 9)))
    except Exception as error:
        return clear(error, ("tile",))
    count = np.zeros(shape, int)
    tiles = list(plan)
    for piece in tiles:
        count[piece.target] += 1
        for d in range(dims):
            size = piece.source[d].stop - piece.source[d].start + sum(piece.padding[d])
            kept = piece.inner[d].stop - piece.inner[d].start
            inside = 0 <= piece.source[d].start < piece.source[d].stop <= shape[d] and min(piece.padding[d]) >= 0
            if not inside or size % stride[d] or kept != piece.target[d].stop - piece.target[d].start:
                raise UnclearError(f"{plan}: {piece}")
            if piece.inner[d].start < 0 or piece.inner[d].stop > size:
                raise UnclearError(f"{plan}: {piece} keeps what it does not compute")
    if len(tiles) != len(plan) or (count != 1).any():
        raise UnclearError(f"{plan} writes pixels {count.min()} to {count.max()} times")
    return "tiled"


def check_words(examples: Path, scratch: Path, rng: random.Random) -> str:
    """Read settings as people type them."""
    from napari_ssdenoise.algorithms import get_algorithm, list_algorithms, settings
    from napari_ssdenoise.engine.memory import parse_memory

    pieces = (
        "1",
        "0",
        "-",
        "e9",
        ".",
        "11111",
        "/",
        "|",
        " ",
        "auto",
        "nan",
        "inf",
        "GB",
        "um",
        ",",
        "psf.tif",
        "é",
        "\0",
    )
    text = "".join(rng.choice(pieces) for _ in range(rng.randrange(6)))
    if rng.random() < 0.2:
        try:
            parse_memory(text)
        except Exception as error:
            return clear(error, ("memory",))
        return "memory"
    key = rng.choice(sorted(list_algorithms()))
    setting = rng.choice(settings(list_algorithms()[key]))
    try:
        algorithm = get_algorithm(key, **{setting.name: setting.parse(text)})
    except Exception as error:
        clear(error, ("",))
        return "refused"
    value = getattr(algorithm, setting.name)
    if replace(algorithm) != algorithm and value == value:
        raise UnclearError(f"{key} {setting.name}={text!r} is not the same twice")
    return "set"


TARGETS = {
    "tiff": Target(check_image, make_tiff, 4),
    "npy": Target(check_image, make_npy),
    "png": Target(check_image, make_png),
    "zarr": Target(check_image, make_zarr, 3),
    "nifti": Target(check_image, make_nifti, 2),
    "dicom": Target(check_image, make_dicom, 2),
    "kspace": Target(check_kspace, make_kspace, 2),
    "models": Target(check_model, make_models, 3),
    "axes": Target(check_axes, share=2),
    "tiles": Target(check_tiles, share=2),
    "words": Target(check_words),
}
