"""DICOM series are sorted by geometry, rescaled, and keep their place in space."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    MPEG4HP41,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from napari_ssdenoise.io import UnreadableError, _dicom_pixels, create_writer, read_volume, write_volume
from napari_ssdenoise.io.dicom import holds_dicom

# An oblique, anisotropic stack. Orthonormal directions of a row and down a column, in DICOM's axes.
ROW = np.array([0.8, 0.6, 0.0])
COLUMN = np.array([0.0, 0.0, -1.0])
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-80.0, 35.0, 120.0])
SPACING = (1.5, 0.9)  # between rows, between columns
STEP = 2.5


def affine(first: Any = ORIGIN, step: float = STEP) -> Any:
    """Return what takes voxel X, Y, Z of the stack to RAS+, written down axis by axis."""
    matrix = np.eye(4)
    for i, column in enumerate((ROW * SPACING[1], COLUMN * SPACING[0], NORMAL * step, first)):
        matrix[:3, i] = (-column[0], -column[1], column[2])
    return matrix


def image(plane: Any, **tags: Any) -> Dataset:
    """Describe a plane, with a row of tags besides."""
    plane = np.asarray(plane)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.SeriesDescription = "MR", "T1 oblique"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "secret-77"
    rgb = plane.ndim > 2 and plane.shape[-1] == 3 and not tags.get("NumberOfFrames")
    dataset.Rows, dataset.Columns = plane.shape[-3:-1] if rgb else plane.shape[-2:]
    dataset.SamplesPerPixel = 3 if rgb else 1
    dataset.PhotometricInterpretation = "RGB" if rgb else "MONOCHROME2"
    if rgb:
        dataset.PlanarConfiguration = 0
    bits = plane.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(plane.dtype.kind == "i")
    dataset.PixelData = plane.astype(plane.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def placed(plane: Any, number: int, series: str = "1.2.3", **tags: Any) -> Dataset:
    """Describe slice number so-and-so of the stack."""
    return image(
        plane,
        **{
            "SeriesInstanceUID": series,
            "InstanceNumber": number + 1,
            "ImageOrientationPatient": [*ROW, *COLUMN],
            "ImagePositionPatient": [round(float(v), 6) for v in ORIGIN + number * STEP * NORMAL],
            "PixelSpacing": list(SPACING),
            "SliceThickness": 2.0,
            **tags,
        },
    )


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def enhanced(planes: Any, groups: list[dict[str, Any]], **tags: Any) -> Dataset:
    """Describe a file of many planes, each with its own functional groups."""
    dataset = image(planes, NumberOfFrames=len(planes), SeriesInstanceUID="1.2.9", **tags)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = EnhancedMRImageStorage
    measures = item(PixelMeasuresSequence={"PixelSpacing": list(SPACING), "SliceThickness": 2.0})
    orientation = item(PlaneOrientationSequence={"ImageOrientationPatient": [*ROW, *COLUMN]})
    measures.update(orientation)
    dataset.SharedFunctionalGroupsSequence = [measures]
    dataset.PerFrameFunctionalGroupsSequence = [item(**group) for group in groups]
    return dataset


def item(**groups: dict[str, Any]) -> Dataset:
    outer = Dataset()
    for name, values in groups.items():
        inner = Dataset()
        for keyword, value in values.items():
            setattr(inner, keyword, value)
        setattr(outer, name, [inner])
    return outer


def stack(shape: tuple[int, ...] = (5, 6, 7), dtype: str = "int16") -> Any:
    return np.random.default_rng(2).integers(0, 200, shape).astype(dtype)


def write_series(folder: Path, planes: Any, **tags: Any) -> Path:
    """Write a stack under names that are not in its order."""
    folder.mkdir(exist_ok=True)
    for number, plane in enumerate(planes):
        save(placed(plane, number, **tags), folder / f"IM{(number * 3) % 7:04}")
    return folder


def test_a_folder_is_a_stack_in_the_order_of_its_slices(tmp_path: Path) -> None:
    planes = stack()
    volume = read_volume(write_series(tmp_path / "T1", planes))
    assert (volume.axes, volume.dtype, volume.name) == ("ZYX", np.dtype("int16"), "T1 oblique")
    np.testing.assert_array_equal(volume[...], planes)
    np.testing.assert_array_equal(volume[3, 1:4, ::2], planes[3, 1:4, ::2])
    np.testing.assert_allclose(volume.scale, (STEP, *SPACING))
    assert volume.units == ("millimeter",) * 3
    np.testing.assert_allclose(volume.metadata["dicom"]["affine"], affine(), atol=1e-5)


def test_what_is_kept_names_no_patient(tmp_path: Path) -> None:
    volume = read_volume(write_series(tmp_path / "T1", stack(), RepetitionTime=2300, Manufacturer="ACME"))
    kept = volume.metadata["dicom"]
    assert (kept["RepetitionTime"], kept["Manufacturer"], kept["Modality"]) == (2300, "ACME", "MR")
    assert not any(text in repr(volume.metadata) for text in ("Doe", "secret", "1.2.3"))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_saved_as_nifti_it_lies_where_it_lay(ending: str, tmp_path: Path) -> None:
    planes = stack()
    volume = read_volume(write_series(tmp_path / "T1", planes))
    loaded = nib.load(write_volume(tmp_path / f"a{ending}", volume))
    np.testing.assert_allclose(loaded.affine, affine(), atol=1e-4)
    np.testing.assert_allclose(loaded.header.get_qform(), affine(), atol=1e-4)
    assert (int(loaded.header["sform_code"]), int(loaded.header["qform_code"])) == (1, 1)
    assert loaded.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), planes.T)


def test_smaller_pixels_lie_in_the_same_place(tmp_path: Path) -> None:
    volume = read_volume(write_series(tmp_path / "T1", stack()))
    fine = replace(volume, translate=(0, -SPACING[0] / 4, -SPACING[1] / 4))
    writer = create_writer(
        tmp_path / "b.nii", fine, dtype="float32", shape=(5, 12, 14), scale=(STEP, SPACING[0] / 2, SPACING[1] / 2)
    )
    writer.array[...] = 1
    after = nib.load(writer.finish()).affine
    for corner in ((-0.5, -0.5, 0), (6.5, 5.5, 4)):
        new = [2 * (corner[0] + 0.5) - 0.5, 2 * (corner[1] + 0.5) - 0.5, corner[2], 1]
        np.testing.assert_allclose(after @ new, affine() @ [*corner, 1], atol=1e-4)


def test_one_file_stands_for_its_series(tmp_path: Path) -> None:
    planes = stack()
    folder = write_series(tmp_path / "all", planes)
    save(placed(stack()[0], 0, series="1.2.4", SeriesDescription="another"), folder / "other.dcm")
    (folder / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(read_volume(folder / "IM0003")[...], planes)
    assert read_volume(folder / "other.dcm").axes == "YX"


def test_a_copy_of_a_file_does_not_count_twice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "T1", stack())
    (folder / "IM0003 (copy)").write_bytes((folder / "IM0003").read_bytes())
    assert read_volume(folder).shape == (5, 6, 7)


def test_several_series_are_listed(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "all", stack(), SeriesNumber=4)
    save(placed(stack()[0], 0, series="1.2.4", SeriesDescription="Scout", SeriesNumber=2), folder / "scout.dcm")
    with pytest.raises(
        ValueError, match=r"2 series.*2 'Scout' \(MR, 1 images of 6x7, e\.g\. scout\.dcm\); 4 'T1 obl.*5 im"
    ):
        read_volume(folder)


def test_directions_of_one_series_are_stacks_of_their_own(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scout", stack((2, 6, 7)))
    save(placed(stack()[0], 0, ImageOrientationPatient=[*COLUMN, *ROW]), folder / "c.dcm")
    with pytest.raises(ValueError, match="holds 2 series, or stacks of different directions"):
        read_volume(folder)
    assert read_volume(folder / "c.dcm").shape == (6, 7)
    assert read_volume(folder / "IM0000").shape == (2, 6, 7)


def test_files_may_lie_in_folders_below(tmp_path: Path) -> None:
    (tmp_path / "patient" / "study").mkdir(parents=True)
    write_series(tmp_path / "patient" / "study" / "series", stack())
    (tmp_path / "patient" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert read_volume(tmp_path / "patient").shape == (5, 6, 7)
    assert read_volume(tmp_path / "patient" / "DICOMDIR").shape == (5, 6, 7)


def test_a_missing_slice_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_series(tmp_path / "T1", stack())
    (folder / "IM0006").unlink()  # the third
    with caplog.at_level(logging.WARNING):
        volume = read_volume(folder)
    assert "not evenly spaced: 5 mm after slice 2, and 2.5 mm elsewhere" in caplog.text
    assert volume.metadata["dicom"]["warnings"][0] in caplog.text
    assert volume.scale[0] == STEP
    np.testing.assert_allclose(volume.metadata["dicom"]["affine"], affine(), atol=1e-5)


def test_rounded_positions_are_evenly_spaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "thin"
    folder.mkdir()
    for i, plane in enumerate(stack()):
        at = [round(float(v), 2) for v in ORIGIN + i * 0.333 * NORMAL]
        save(placed(plane, i, ImagePositionPatient=at), folder / f"{i}.dcm")
    with caplog.at_level(logging.WARNING):
        volume = read_volume(folder)
    assert not caplog.records
    assert volume.scale[0] == pytest.approx(0.333, abs=0.003)


def test_a_direction_of_zeros_is_none(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "T1", stack(), ImageOrientationPatient=[0, 0, 0, 0, 0, 0])
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume[...], stack())  # by instance number
    assert "affine" not in volume.metadata["dicom"]


def test_without_a_pixel_size_there_are_no_units(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "T1", stack())
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.PixelSpacing
        dataset.save_as(path)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume[...], stack())
    assert (volume.scale, volume.units) == ((1.0,) * 3, (None,) * 3)
    assert "affine" not in volume.metadata["dicom"]


def test_a_tilted_gantry_shears_the_affine(tmp_path: Path) -> None:
    folder = tmp_path / "CT"
    folder.mkdir()
    step = STEP * NORMAL + 0.7 * COLUMN
    for i, plane in enumerate(stack()):
        at = [round(float(v), 6) for v in ORIGIN + i * step]
        save(placed(plane, i, ImagePositionPatient=at), folder / f"{i}.dcm")
    found = nib.load(write_volume(tmp_path / "a.nii", read_volume(folder))).affine
    for z in (0, 4):
        at = ORIGIN + z * step
        np.testing.assert_allclose(found @ [0, 0, z, 1], [-at[0], -at[1], at[2], 1], atol=1e-4)


@pytest.mark.parametrize("clock", ["AcquisitionTime", "TriggerTime", None])
def test_repeats_become_time(clock: str | None, tmp_path: Path) -> None:
    planes = stack((3, 4, 6, 7))
    for t in range(3):
        moment = {"AcquisitionTime": f"10135{t * 2}.250000", "TriggerTime": f"{t * 2000.0}"}
        for z in range(4):
            tags = {clock: moment[clock]} if clock else {}
            dataset = placed(planes[t, z], z, **tags)
            dataset.InstanceNumber = 100 * z + t  # slices first, as some scanners number
            save(dataset, tmp_path / f"{(5 * z + 3 * t) % 13}_{t}{z}.dcm")
    volume = read_volume(tmp_path)
    assert volume.axes == "TZYX"
    np.testing.assert_array_equal(volume[...], planes)
    assert (volume.scale[0], volume.units[0]) == ((2.0, "second") if clock else (1.0, None))
    loaded = nib.load(write_volume(tmp_path / "a.nii", volume))
    np.testing.assert_allclose(loaded.affine, affine(), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), planes.T)


def test_echoes_and_parts_become_channels(tmp_path: Path) -> None:
    planes = stack((2, 2, 3, 6, 7))
    for p, part in enumerate("MP"):
        for e, echo in enumerate((4.92, 7.38)):
            for z in range(3):
                kind = ["ORIGINAL", "PRIMARY", part, "ND"]
                dataset = placed(planes[p, e, z], z, EchoTime=echo, ImageType=kind)
                save(dataset, tmp_path / f"{generate_uid()}.dcm")
    volume = read_volume(tmp_path)
    assert volume.axes == "CZYX"
    assert volume.channel_names == (
        *("magnitude TE 4.92 ms", "magnitude TE 7.38 ms", "phase TE 4.92 ms", "phase TE 7.38 ms"),
    )
    np.testing.assert_array_equal(volume[...], planes.reshape(4, 3, 6, 7))


def test_an_unfinished_repeat_is_told(tmp_path: Path) -> None:
    for t in range(3):
        for z in range(4 if t < 2 else 2):
            save(placed(stack()[z], z, InstanceNumber=10 * t + z), tmp_path / f"{t}{z}.dcm")
    with pytest.raises(ValueError, match=r"incomplete: most of its 4 slices have 3 images each, but slice 3, 4 has 2"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("stored", "bits", "slope", "inter", "dtype"),
    [
        ("uint16", 12, "1", "-1024", "int16"),
        ("int16", 16, "1", "-1024", "int32"),
        ("uint16", 16, "0.37", "2.5", "float32"),
        ("int32", 32, "0.5", "0", "float64"),
        ("uint8", 8, "1", "0", "uint8"),
    ],
)
def test_rescale_is_applied(stored: str, bits: int, slope: str, inter: str, dtype: str, tmp_path: Path) -> None:
    planes = stack(dtype=stored)
    folder = write_series(tmp_path / "CT", planes, BitsStored=bits, RescaleSlope=slope, RescaleIntercept=inter)
    volume = read_volume(folder)
    assert volume.dtype == np.dtype(dtype)
    np.testing.assert_allclose(volume[...], planes * float(slope) + float(inter), rtol=1e-6)


def test_every_slice_has_its_own_slope(tmp_path: Path) -> None:
    planes = stack()
    for i, plane in enumerate(planes):
        save(placed(plane, i, RescaleSlope=str(1 + i / 4)), tmp_path / f"{i}.dcm")
    np.testing.assert_allclose(read_volume(tmp_path)[...], planes * (1 + np.arange(5) / 4)[:, None, None])


def test_an_enhanced_file_is_sorted_in_the_same_way(tmp_path: Path) -> None:
    planes = stack((2, 3, 6, 7))
    order = [(t, z) for z in (2, 0, 1) for t in (1, 0)]
    groups = [
        {
            "PlanePositionSequence": {"ImagePositionPatient": [round(float(v), 6) for v in ORIGIN + z * STEP * NORMAL]},
            "FrameContentSequence": {
                "TemporalPositionIndex": t + 1,
                "FrameAcquisitionDateTime": f"2024022923595{8 + t}.5" if t == 0 else "20240301000001.5",
            },
            "PixelValueTransformationSequence": {"RescaleSlope": 1 + t, "RescaleIntercept": 10 * z},
        }
        for t, z in order
    ]
    path = save(enhanced(np.stack([planes[t, z] for t, z in order]), groups), tmp_path / "multi.dcm")
    save(placed(stack()[0], 0), tmp_path / "other.dcm")
    volume = read_volume(path)
    assert (volume.axes, volume.dtype, volume.name) == ("TZYX", np.dtype("int32"), "T1 oblique")
    slope, inter = np.arange(1, 3)[:, None, None, None], 10 * np.arange(3)[:, None, None]
    np.testing.assert_array_equal(volume[...], planes * slope + inter)
    np.testing.assert_array_equal(volume[1, 2, 1:3], planes[1, 2, 1:3] * 2 + 20)
    np.testing.assert_allclose(volume.scale, (3.0, STEP, *SPACING))
    np.testing.assert_allclose(volume.metadata["dicom"]["affine"], affine(), atol=1e-5)


def test_a_film_is_time(tmp_path: Path) -> None:
    frames = stack(dtype="uint8")
    volume = read_volume(save(image(frames, NumberOfFrames=5, FrameTime="40"), tmp_path / "cine.dcm"))
    assert (volume.axes, volume.scale[0], volume.units[0]) == ("TYX", 0.04, "second")
    np.testing.assert_array_equal(volume[1:3], frames[1:3])


def test_frames_that_lie_behind_each_other(tmp_path: Path) -> None:
    frames = stack(dtype="uint16")
    dataset = placed(frames, 0, NumberOfFrames=5, GridFrameOffsetVector=[5, 2.5, 0, -2.5, -5], DoseGridScaling="0.5")
    volume = read_volume(save(dataset, tmp_path / "dose.dcm"))
    np.testing.assert_array_equal(volume[...], frames[::-1] * 0.5)
    np.testing.assert_allclose(volume.metadata["dicom"]["affine"], affine(ORIGIN - 4 * STEP * NORMAL), atol=1e-5)


def test_colours_and_inverted_grey(tmp_path: Path) -> None:
    rgb = stack((6, 7, 3), "uint8")
    volume = read_volume(save(image(rgb), tmp_path / "rgb.dcm"))
    assert volume.axes == "YXS"
    np.testing.assert_array_equal(volume[...], rgb)
    planar = image(rgb, PlanarConfiguration=1, PixelData=rgb.transpose(2, 0, 1).tobytes())
    np.testing.assert_array_equal(read_volume(save(planar, tmp_path / "planar.dcm"))[...], rgb)
    grey = save(image(rgb[..., 0].copy(), PhotometricInterpretation="MONOCHROME1"), tmp_path / "grey.dcm")
    volume = read_volume(grey)
    np.testing.assert_array_equal(volume[...], rgb[..., 0])
    assert volume.metadata["dicom"]["PhotometricInterpretation"] == "MONOCHROME1"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_transfer_syntaxes(syntax: Any, tmp_path: Path) -> None:
    for i, plane in enumerate(stack()):
        dataset = placed(plane, i)
        if syntax == RLELossless:
            dataset.compress(syntax)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        save(dataset, tmp_path / f"{i}.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path)[...], stack())


@pytest.mark.filterwarnings("ignore:.*is_little_endian.*:DeprecationWarning")
def test_big_endian(tmp_path: Path) -> None:
    from pydicom.uid import ExplicitVRBigEndian

    dataset = placed(stack()[0], 0)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = stack()[0].astype(">i2").tobytes()
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path / "a.dcm"))[...], stack()[0])


def test_only_the_slices_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = read_volume(write_series(tmp_path / "T1", stack()))
    opened = []
    read = _dicom_pixels.Pixels.read
    monkeypatch.setattr(_dicom_pixels.Pixels, "read", lambda self, i: (opened.append(self.path.name), read(self, i))[1])
    volume[1:3, 2]
    assert opened == ["IM0003", "IM0006"]
    assert volume.chunks == (1, 6, 7)


def test_a_series_travels_to_other_processes(tmp_path: Path) -> None:
    data = read_volume(write_series(tmp_path / "T1", stack())).data
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[2], stack()[2])


def compressed(dataset: Dataset, syntax: Any, frame: bytes) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize(
    ("syntax", "codec", "options"),
    [
        (JPEGLosslessSV1, "jpeg8", {"lossless": True}),
        (JPEGLSLossless, "jpegls", {}),
        (HTJ2KLossless, "htj2k", {}),
    ],
)
def test_compressed_without_loss(syntax: Any, codec: str, options: Any, dtype: str, tmp_path: Path) -> None:
    if not hasattr(imagecodecs, f"{codec}_encode"):
        pytest.skip(f"this imagecodecs cannot write {codec}")
    plane = stack((40, 32), "int16") - 100 if dtype == "int16" else stack((40, 32), dtype)
    # Signed numbers are stored as what their bits are without a sign.
    bits = plane.view(f"u{plane.dtype.itemsize}") if codec != "htj2k" else plane
    frame = getattr(imagecodecs, f"{codec}_encode")(bits, **options)
    volume = read_volume(save(compressed(placed(plane, 0), syntax, frame), tmp_path / "a.dcm"))
    assert volume.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume[...], plane)


def test_compressed_with_12_bits(tmp_path: Path) -> None:
    plane = np.add.outer(np.arange(40), np.arange(32)).astype("uint16") * 40
    frame = imagecodecs.jpeg8_encode(plane, level=100, bitspersample=12)
    dataset = compressed(placed(plane, 0, BitsStored=12, HighBit=11), JPEGExtended12Bit, frame)
    np.testing.assert_allclose(read_volume(save(dataset, tmp_path / "a.dcm"))[...], plane, atol=4)


def test_compressed_colours(tmp_path: Path) -> None:
    rgb = stack((40, 32, 3), "uint8")
    dataset = compressed(image(rgb), JPEGLSLossless, imagecodecs.jpegls_encode(rgb))
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path / "a.dcm"))[...], rgb)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [(JPEG2000Lossless, "JPEG 2000.*no decoder for that is.*pip install"), (MPEG4HP41, "MPEG-4.*no decoder here")],
)
def test_what_cannot_be_decoded_is_told_at_the_door(
    syntax: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(compressed(placed(stack()[0], 0), syntax, b"\xff\xd8 no picture"), tmp_path / "a.dcm")
    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(ValueError, match=rf"a\.dcm is compressed as {words}"):
        read_volume(path)


def bad(kind: str, tmp_path: Path) -> Path:
    """Write something that is not an image, or not one that can be read."""
    path = tmp_path / "bad.dcm"
    plane = stack()[0]
    if kind == "foreign":
        path.write_bytes(b"no DICOM file" * 99)
        return path
    tags: dict[str, Any] = {
        "palette": {"PhotometricInterpretation": "PALETTE COLOR"},
        "mosaic": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]},
        "bits": {"BitsAllocated": 12},
    }.get(kind, {})
    dataset = placed(plane, 0, **tags)
    if kind == "no image":
        del dataset.Rows, dataset.Columns, dataset.PixelData
    save(dataset, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("foreign", "is not a DICOM file"),
        ("no image", "DICOM file without an image"),
        ("palette", "colours come from a palette"),
        ("mosaic", "dcm2niix"),
        ("bits", "a pixel has 12 bits"),
        ("truncated", "its pixels need 84 bytes, but only 64"),
    ],
)
def test_bad_files(kind: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"bad\.dcm.*{words}"):
        read_volume(bad(kind, tmp_path))


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a Zarr image .* holds no DICOM files"):
        read_volume(tmp_path)
    for i in range(3):
        (tmp_path / f"folder {i}" / "deeper").mkdir(parents=True)
    assert not holds_dicom(tmp_path)
    assert not holds_dicom(tmp_path / "none")
    bad("no image", tmp_path)
    with pytest.raises(ValueError, match="holds no DICOM file with an image"):
        read_volume(tmp_path)


def test_pixels_that_get_lost_later(tmp_path: Path) -> None:
    path = save(placed(stack()[0], 0), tmp_path / "a.dcm")
    volume = read_volume(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableError, match=r"a\.dcm could not be read at .* ends before its pixels do"):
        volume[...]


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "CT_small.dcm"])
def test_real_files(name: str, tmp_path: Path) -> None:
    """Those that come with pydicom, as far as they were installed."""
    file = Path(pydicom.__file__).parent / "data" / "test_files" / name
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    (tmp_path / name).write_bytes(file.read_bytes())
    dataset = pydicom.dcmread(file)
    slope, inter = (float(dataset.get(f"Rescale{k}", d)) for k, d in (("Slope", 1), ("Intercept", 0)))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume[...], dataset.pixel_array * slope + inter)
    np.testing.assert_allclose(volume.scale, [float(v) for v in dataset.PixelSpacing])
    at = [float(v) for v in dataset.ImagePositionPatient]
    np.testing.assert_allclose(np.array(volume.metadata["dicom"]["affine"])[:3, 3], [-at[0], -at[1], at[2]])
