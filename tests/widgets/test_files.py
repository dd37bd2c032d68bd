"""NIfTI and DICOM through napari's own File menu."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.errors import MultipleReaderError
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from napari_ssdenoise.widgets import files

PLUGIN = "napari-ssdenoise"
AFFINE = np.array([[-1.9, 0.1, 0.3, 90], [0.2, 2.1, -0.4, -120], [0.1, 0.5, 2.9, -70], [0, 0, 0, 1.0]])


@pytest.fixture
def viewer() -> ViewerModel:
    """Return a viewer without windows, that knows the installed plugins."""
    PluginManager.instance().discover()
    return ViewerModel()


def numbers(shape: tuple[int, ...], dtype: str) -> Any:
    rng = np.random.default_rng(4)
    values = rng.integers(-200, 250, shape)
    return (values + 1j * rng.integers(-200, 250, shape)).astype(dtype) if "c" in dtype else values.astype(dtype)


def nifti(path: Path, data: Any, slope: tuple[float, float] | None = None) -> Path:
    image = nib.Nifti1Image(data, AFFINE, dtype=data.dtype)
    image.header.set_xyzt_units("mm", "msec")
    image.header["descrip"] = b"MPRAGE"
    if data.ndim > 3:
        image.header["pixdim"][4] = 2500
    nib.save(image, path)
    if slope:
        head = bytearray(content(path))
        head[112:120] = np.array(slope, "<f4").tobytes()
        path.write_bytes(gzip.compress(head) if path.suffix == ".gz" else head)
    return path


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def series(folder: Path, planes: Any, **tags: Any) -> Path:
    """Write axial slices, the last one first by name."""
    folder.mkdir()
    for i, plane in enumerate(planes):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.{i}"
        dataset.SeriesInstanceUID, dataset.SeriesDescription, dataset.Modality = "1.2", "T1 axial", "MR"
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-50, -60, 3 * i]
        dataset.PixelSpacing, (dataset.Rows, dataset.Columns) = [1.5, 0.75], plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.PixelData = 15, 1, plane.astype("<i2").tobytes()
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(folder / f"{9 - i}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "dtype", "slope"),
    [
        ((7, 6, 5), "int16", None),
        ((7, 6, 5, 4), "int16", (0.37, 12.5)),
        ((7, 6, 5, 4), ">f4", None),
        ((7, 6), "uint8", None),
    ],
)
def test_round_trip(shape: tuple[int, ...], dtype: str, slope: Any, ending: str, viewer: Any, tmp_path: Path) -> None:
    source = nifti(tmp_path / f"head{ending}", numbers(shape, dtype), slope)
    (layer,) = viewer.open(source, plugin=PLUGIN)
    assert layer.name == "head"
    assert layer.axis_labels == tuple("tzyx"[-len(shape) :])
    assert [str(unit) for unit in layer.units] == ["millisecond", *["millimeter"] * 3][-len(shape) :]
    sizes = np.linalg.norm(AFFINE[:3, :3], axis=0)
    np.testing.assert_allclose(layer.scale, [2500, *sizes[::-1]][-len(shape) :], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(layer.data), nib.load(source).get_fdata().T, rtol=1e-6)
    saved = layer.save(str(tmp_path / f"again{ending}"))
    assert saved == [str(tmp_path / f"again{ending}")]
    assert content(tmp_path / f"again{ending}") == content(source)


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 5, 4)])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_images_are_layers_of_their_parts(
    dtype: str, shape: tuple[int, ...], viewer: Any, tmp_path: Path
) -> None:
    data = numbers(shape, dtype)
    data.flat[:3] = complex(-0.0, 0.0), complex(np.inf, -1), complex(np.nan, 5)
    source = nifti(tmp_path / "head.nii.gz", data)
    layers = {layer.name: layer for layer in viewer.open(source, plugin=PLUGIN)}
    assert list(layers) == ["head imaginary", "head real", "head phase", "head magnitude"]
    assert [layer.visible for layer in layers.values()] == [False, False, False, True]
    np.testing.assert_array_equal(np.asarray(layers["head magnitude"].data[1]), np.abs(data.T[1]))
    np.testing.assert_array_equal(layers["head phase"].metadata["complex"]["data"][...], data.T)
    # All of them, two of them, and one.
    viewer.layers.save(str(tmp_path / "all.nii"))
    assert content(tmp_path / "all.nii") == content(source)
    viewer.layers.selection = {layers["head real"], layers["head imaginary"]}
    viewer.layers.save(str(tmp_path / "two.nii.gz"), selected=True)
    assert content(tmp_path / "two.nii.gz") == content(source)
    layers["head magnitude"].save(str(tmp_path / "one.nii"))
    one = nib.load(tmp_path / "one.nii")
    assert (one.get_data_dtype().kind, one.header["descrip"]) == ("f", b"MPRAGE")
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.abs(data))


@pytest.mark.parametrize("name", ["head.hdr", "head.img"])
def test_pairs_of_header_and_voxels(name: str, viewer: Any, tmp_path: Path) -> None:
    data = numbers((7, 6, 5), "int16")
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "head.img")
    (layer,) = viewer.open(tmp_path / name, plugin=PLUGIN)
    np.testing.assert_array_equal(np.asarray(layer.data), data.T)
    layer.save(str(tmp_path / "one.nii"))
    np.testing.assert_allclose(nib.load(tmp_path / "one.nii").affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("names", [("real", "imaginary"), ("magnitude", "phase")])
def test_changed_parts_are_put_together(names: tuple[str, str], viewer: Any, tmp_path: Path) -> None:
    data = numbers((7, 6, 5), "complex64")
    layers = {layer.name: layer for layer in viewer.open(nifti(tmp_path / "head.nii", data), plugin=PLUGIN)}
    chosen = [layers[f"head {name}"] for name in names]
    chosen[0].data = np.asarray(chosen[0].data[...]) * 2
    viewer.layers.selection = set(chosen)
    viewer.layers.save(str(tmp_path / "out.nii"), selected=True)
    out = nib.load(tmp_path / "out.nii")
    expected = data.real * 2 + 1j * data.imag if names[0] == "real" else data * 2
    assert out.get_data_dtype() == np.complex64
    np.testing.assert_allclose(np.asarray(out.dataobj), expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(out.affine, AFFINE, atol=1e-5)


def test_a_dicom_folder_and_one_of_its_files(viewer: Any, tmp_path: Path) -> None:
    planes = numbers((5, 6, 7), "int16")
    folder = series(tmp_path / "dicom", planes)
    (layer,) = viewer.open(folder, plugin=PLUGIN)
    (same,) = viewer.open(folder / "7.dcm", plugin=PLUGIN)
    (stack,) = viewer.open([folder / "9.dcm", folder / "7.dcm"], plugin=PLUGIN, stack=True)
    for opened in (layer, same):
        np.testing.assert_array_equal(np.asarray(opened.data), planes)
    np.testing.assert_array_equal(np.asarray(stack.data), planes[[0, 2]])
    assert (layer.name, layer.axis_labels) == ("T1 axial", ("z", "y", "x"))
    np.testing.assert_allclose(layer.scale, (3, 1.5, 0.75))
    layer.save(str(tmp_path / "a.nii.gz"))
    expected = [[-0.75, 0, 0, 50], [0, -1.5, 0, 60], [0, 0, 3, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(nib.load(tmp_path / "a.nii.gz").affine, expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj), planes.T)


def test_missing_slices_and_inverted_grey_are_seen(viewer: Any, tmp_path: Path) -> None:
    folder = series(tmp_path / "dicom", numbers((5, 6, 7), "int16"), PhotometricInterpretation="MONOCHROME1")
    (folder / "7.dcm").unlink()
    (layer,) = viewer.open(folder, plugin=PLUGIN)
    assert layer.colormap.name == "gray_r"
    assert "not evenly spaced: 6 mm after slice 2" in notification_manager.records[-1].message


def test_the_file_menu(make_napari_viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """napari itself claims such files, so that it asks once which reader to take; then it knows."""
    from napari._qt import qt_viewer
    from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog

    viewer = make_napari_viewer()
    menu = viewer.window._qt_viewer
    source = nifti(tmp_path / "head.nii.gz", numbers((7, 6, 5), "int16"))
    with pytest.raises(MultipleReaderError, match=PLUGIN):
        viewer.open(source, plugin=None)
    asked = []

    def choose(dialog: Any) -> tuple[str, bool]:
        asked.append([button.text() for button in dialog.reader_btn_group.buttons()])
        return "ssdenoise", True

    monkeypatch.setattr(QtReaderDialog, "get_user_choices", choose)
    monkeypatch.setattr(get_settings().plugins, "extension2reader", {})
    monkeypatch.setattr(type(menu), "_open_file_dialog_uni", lambda *_: [str(source)])
    menu._open_files_dialog()
    menu._open_files_dialog()
    assert asked == [["napari builtins", "ssdenoise"]]
    assert [layer.source.reader_plugin for layer in viewer.layers] == [PLUGIN] * 2
    viewer.open(source, plugin=None)

    def name(*_: Any, filter: str, **__: Any) -> tuple[str, str]:  # noqa: A002
        kind = next(text for text in filter.split(";;") if "NIfTI" in text)
        return str(tmp_path / "saved.nii.gz"), kind

    monkeypatch.setattr(qt_viewer.QFileDialog, "getSaveFileName", name)
    menu._save_layers_dialog(selected=True)
    assert content(tmp_path / "saved.nii.gz") == content(source)


def test_results_lie_where_their_source_lies(viewer: Any, tmp_path: Path) -> None:
    from napari_ssdenoise.widgets._shown import ResultLayer

    source = nifti(tmp_path / "head.nii", numbers((7, 6, 5, 4), "int16"))
    (layer,) = viewer.open(source, plugin=PLUGIN)
    result = ResultLayer(viewer, layer)
    clean = np.asarray(layer.data, np.float32) / 3
    result.add(clean, "head denoised", (0, 1), select=True, metadata={"ssdenoise": {"version": "1"}})
    assert result.layer.metadata["ssdenoise"] == {"version": "1"}
    result.layer.save(str(tmp_path / "clean.nii"))
    saved = nib.load(tmp_path / "clean.nii")
    np.testing.assert_array_equal(np.asarray(saved.dataobj), clean.T)
    np.testing.assert_array_equal(saved.affine, nib.load(source).affine)
    assert (saved.header["descrip"], saved.header["pixdim"][4]) == (b"MPRAGE", 2500)


def test_what_cannot_be_read_says_why_and_adds_nothing(viewer: Any, tmp_path: Path) -> None:
    source = nifti(tmp_path / "head.nii", numbers((7, 6, 5), "int16"))
    source.write_bytes(source.read_bytes()[:400])
    notification_manager.records.clear()
    assert viewer.open(source, plugin=PLUGIN) == []
    assert not viewer.layers
    assert [record.severity for record in notification_manager.records] == ["error"]
    assert "head.nii" in notification_manager.records[0].message


def test_what_cannot_be_saved_says_why(viewer: Any, tmp_path: Path) -> None:
    viewer.add_image(np.zeros((5, 6), np.uint8), name="a")
    viewer.add_image(np.zeros((5, 6), np.uint8), name="b")
    with pytest.raises(files.NotSavedError, match="“a”, “b” are 2 that are not the parts of a complex one"):
        viewer.layers.save(str(tmp_path / "x.nii"))
    viewer.add_image(np.zeros((5, 6, 3), np.float32), name="rgb", rgb=True)
    with pytest.raises(files.NotSavedError, match="8-bit RGB"):
        viewer.layers["rgb"].save(str(tmp_path / "x.nii"))
    # A name without an ending, as the dialog of *Save selected layers* may give it.
    assert files.write_nifti(str(tmp_path / "x"), *viewer.layers["a"].as_layer_data_tuple()[:2]) == [
        str(tmp_path / "x.nii.gz")
    ]


def test_a_turned_layer_is_told(viewer: Any, tmp_path: Path) -> None:
    (layer,) = viewer.open(nifti(tmp_path / "head.nii", numbers((7, 6, 5), "int16")), plugin=PLUGIN)
    before = len(notification_manager.records)
    layer.save(str(tmp_path / "a.nii"))
    assert len(notification_manager.records) == before
    layer.affine = np.diag([1, 1, -1, 1])
    layer.save(str(tmp_path / "b.nii"))
    assert "saved without that" in notification_manager.records[-1].message
    assert content(tmp_path / "b.nii") == content(tmp_path / "a.nii")


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"nothing" * 50)
    assert files.dicom_reader(str(tmp_path / "a.dcm")) is None
    assert files.dicom_reader(str(tmp_path)) is None
    assert files.dicom_reader([]) is None
    assert files.nifti_reader(str(tmp_path / "a.tif")) is None
