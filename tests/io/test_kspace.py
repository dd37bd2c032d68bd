"""Raw MRI data from every kind of file is the same as what its library reads."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest
from scipy.io import savemat

from napari_ssdenoise.io.kspace import KSpace, open_kspace
from napari_ssdenoise.io.kspace_hdf5 import holds_kspace

SLICES, COILS, ROWS, COLUMNS = 3, 4, 24, 18
HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace>
<matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
<fieldOfView_mm><x>48.0</x><y>27.0</y><z>5.0</z></fieldOfView_mm></encodedSpace><encodingLimits>
<kspace_encoding_step_1><minimum>0</minimum><maximum>17</maximum><center>{centre}</center></kspace_encoding_step_1>
</encodingLimits><trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>"""


@pytest.fixture
def data() -> Any:
    rng = np.random.default_rng(1)
    shape = (SLICES, COILS, ROWS, COLUMNS)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def lines(n: int = COLUMNS) -> Any:
    mask = np.zeros(n, bool)
    mask[n // 2 - 3 : n // 2 + 3] = mask[::4] = True
    return mask


def fastmri(path: Path, data: Any, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = data
        file["reconstruction_rss"] = np.abs(data).astype(np.float32)
        for name, value in more.items():
            file[name] = value
    return path


def raw(path: Path, data: Any, *, header: dict[str, Any] | None = None, shift: int = 0, extra: Any = None) -> Path:
    """Write acquisitions with the ISMRMRD library."""
    values = {"x": data.shape[2], "y": data.shape[3], "z": 1, "centre": data.shape[3] // 2, "trajectory": "cartesian"}
    dataset = ismrmrd.Dataset(str(path), "dataset", mode="w")
    dataset.write_xml_header(HEADER.format(**values | (header or {})).encode())
    for s, k in ((s, k) for s in range(data.shape[0]) for k in range(data.shape[3])):
        if not data[s, :, :, k].any():
            continue
        acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data[s, :, :, k]))
        acquisition.idx.slice, acquisition.idx.kspace_encode_step_1 = s, k + shift
        acquisition.center_sample = data.shape[2] // 2
        if extra:
            extra(acquisition)
        dataset.append_acquisition(acquisition)
    dataset.close()
    return path


def test_a_fastmri_file_is_read_slice_by_slice(data: Any, tmp_path: Path) -> None:
    kspace = open_kspace(
        fastmri(
            tmp_path / "file1.h5", data, ismrmrd_header=HEADER.format(x=24, y=18, z=1, centre=9, trajectory="cartesian")
        )
    )
    assert (kspace.shape, kspace.name, kspace.scale) == (data.shape, "file1", (2.0, 1.5))
    again = pickle.loads(pickle.dumps(kspace))
    for s in range(SLICES):
        read, mask = again.read(s)
        np.testing.assert_array_equal(read, data[s])
        assert mask.all()


def test_the_mask_of_a_file_is_kept(data: Any, tmp_path: Path) -> None:
    kspace = open_kspace(fastmri(tmp_path / "a.h5", data * lines(), mask=lines()))
    read, mask = kspace.read(1)
    np.testing.assert_array_equal(mask, np.broadcast_to(lines(), (ROWS, COLUMNS)))
    np.testing.assert_array_equal(read, data[1] * lines())


def test_a_single_coil_fastmri_file_has_one_coil(data: Any, tmp_path: Path) -> None:
    assert open_kspace(fastmri(tmp_path / "a.h5", data[:, 0])).shape == (SLICES, 1, ROWS, COLUMNS)


def test_ismrmrd_lines_are_those_of_the_library_and_of_fastmri(data: Any, tmp_path: Path) -> None:
    data = data * lines()
    path = raw(tmp_path / "scan.h5", data)
    kspace = open_kspace(path)
    assert (kspace.shape, kspace.scale, kspace.labels) == (data.shape, (2.0, 1.5), ("slice 0", "slice 1", "slice 2"))
    library = ismrmrd.Dataset(str(path), "dataset", mode="r")
    for number in range(library.number_of_acquisitions()):
        line = library.read_acquisition(number)
        read, mask = kspace.read(line.idx.slice)
        np.testing.assert_array_equal(read[:, :, line.idx.kspace_encode_step_1], line.data)
        np.testing.assert_array_equal(mask, np.broadcast_to(lines(), (ROWS, COLUMNS)))
    library.close()
    other = open_kspace(fastmri(tmp_path / "file.h5", data))
    for s in range(SLICES):
        np.testing.assert_array_equal(kspace.read(s)[0], other.read(s)[0])


def test_ismrmrd_steps_count_from_the_centre_that_the_header_tells(data: Any, tmp_path: Path) -> None:
    kspace = open_kspace(raw(tmp_path / "scan.mrd", data, header={"centre": COLUMNS // 2 + 5}, shift=5))
    np.testing.assert_array_equal(kspace.read(0)[0], data[0])


def test_ismrmrd_noise_scans_are_no_lines_and_averages_are_averaged(data: Any, tmp_path: Path) -> None:
    path = raw(tmp_path / "scan.h5", data)
    dataset = ismrmrd.Dataset(str(path), "dataset", mode="r+")
    noise = ismrmrd.Acquisition.from_array(np.full((COILS, ROWS), 9, np.complex64))
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    again = ismrmrd.Acquisition.from_array(np.ascontiguousarray(3 * data[0, :, :, 4]))
    again.idx.kspace_encode_step_1, again.idx.average, again.center_sample = 4, 1, ROWS // 2
    for acquisition in (noise, again):
        dataset.append_acquisition(acquisition)
    dataset.close()
    read, _ = open_kspace(path).read(0)
    np.testing.assert_allclose(read[:, :, 4], 2 * data[0, :, :, 4])
    np.testing.assert_array_equal(np.delete(read, 4, 2), np.delete(data[0], 4, 2))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"trajectory": "spiral"}, "spiral trajectory"),
        ({"z": 8}, "3D acquisition"),
        ({"x": 12}, "does not fit a matrix"),
        ({"y": "?"}, "size of the matrix"),
    ],
)
def test_ismrmrd_that_cannot_be_sorted_is_refused(
    header: dict[str, Any], message: str, data: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        open_kspace(raw(tmp_path / "scan.h5", data, header=header))


def test_numpy_and_matlab_files_and_arrays_give_the_same(data: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", data)
    savemat(tmp_path / "a.mat", {"kdata": data[0].transpose(1, 2, 0), "image": data[0, 0], "n": 3.0})
    found = [
        open_kspace(tmp_path / "a.npy"), open_kspace(data), open_kspace(data[0]),
        open_kspace(data[0].transpose(1, 2, 0), axes="YXC"),
        open_kspace(tmp_path / "a.mat", axes="YXC"), open_kspace(tmp_path / "a.mat", axes="YXC", variable="kdata"),
    ]  # fmt: skip
    for kspace in found:
        np.testing.assert_array_equal(kspace.read(0)[0], data[0])
    assert open_kspace(data.reshape(3, 1, COILS, ROWS, COLUMNS), axes="TZCYX").shape == data.shape
    assert open_kspace(data[0, 0]).shape == (1, 1, ROWS, COLUMNS)


def test_matlab_7_3_files_have_their_dimensions_the_other_way_round(data: Any, tmp_path: Path) -> None:
    stored = np.empty(data[0].T.shape[::-1], [("real", "<f4"), ("imag", "<f4")])
    stored["real"], stored["imag"] = data[0].real, data[0].imag
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["DATA"] = stored  # MATLAB's X, Y, C in its order of memory
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    np.testing.assert_array_equal(open_kspace(tmp_path / "a.mat", axes="XYC").read(0)[0], data[0])


@pytest.mark.parametrize(
    "mask", [lines(), lines()[None], np.broadcast_to(lines(), (SLICES, ROWS, COLUMNS)).astype(int)]
)
def test_a_mask_takes_samples_away(mask: Any, data: Any) -> None:
    read, found = open_kspace(data, mask=mask).read(2)
    np.testing.assert_array_equal(read, data[2] * lines())
    np.testing.assert_array_equal(found, np.broadcast_to(lines(), (ROWS, COLUMNS)))
    rows = open_kspace(data).undersampled(lines(ROWS)).read(0)[1]
    np.testing.assert_array_equal(rows, np.broadcast_to(lines(ROWS)[:, None], (ROWS, COLUMNS)))


def test_a_zero_by_chance_is_no_gap_and_padding_is_one(data: Any) -> None:
    data[0, :, 3, 4] = 0
    data[:, :, :, 16:] = 0
    mask = open_kspace(data, mask=np.ones(COLUMNS)).read(0)[1]
    assert mask[:, :16].all()
    assert not mask[:, 16:].any()


@pytest.mark.parametrize("mask", [np.ones(7), np.full(COLUMNS, b"yes")], ids=["long", "text"])
def test_a_mask_of_a_file_that_cannot_be_one_is_told_with_its_name(mask: Any, data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"odd\.h5: the sampling mask"):
        open_kspace(fastmri(tmp_path / "odd.h5", data, mask=mask))


def test_damaged_files_are_told_with_their_names(data: Any, tmp_path: Path) -> None:
    fastmri(tmp_path / "odd.h5", data)
    stored = (tmp_path / "odd.h5").read_bytes()
    (tmp_path / "odd.h5").write_bytes(stored.replace(b"SNOD", b"oops"))  # within the library's own tables
    savemat(tmp_path / "odd.mat", {"kspace": data})
    (tmp_path / "odd.mat").write_bytes((tmp_path / "odd.mat").read_bytes()[:126])
    np.save(tmp_path / "odd.npy", data)
    (tmp_path / "odd.npy").write_bytes(
        (tmp_path / "odd.npy").read_bytes().replace(b"'descr': '<c8'", b"'descr': '<c8\0")
    )
    for name in ("odd.h5", "odd.mat", "odd.npy"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read"):
            open_kspace(tmp_path / name)
    assert not holds_kspace(tmp_path / "odd.h5")


def test_masks_that_do_not_fit_are_refused(data: Any) -> None:
    for mask, message in ((np.ones(7), r"\(7,\) does not fit"), (np.zeros(COLUMNS), "selects no sample")):
        with pytest.raises(ValueError, match=message):
            open_kspace(data, mask=mask)
    other = np.roll(lines(), 1)
    with pytest.raises(ValueError, match="0 in every coil"):
        open_kspace(data * lines(), mask=other).read(0)


def test_coils_along_another_axis_are_noticed(data: Any) -> None:
    with pytest.raises(ValueError, match=r"transposed.*'YXC'"):
        open_kspace(data[0].transpose(1, 2, 0))
    with pytest.raises(ValueError, match=r"transposed.*'ZYXC'"):
        open_kspace(data.transpose(0, 2, 3, 1))


def test_what_is_no_kspace_is_refused_in_clear_words(data: Any, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "b.h5").write_bytes(b"II*\0" + b"\0" * 200)
    (tmp_path / "c.h5").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "d.h5").write_bytes(b"hello")
    (tmp_path / "e.txt").write_text("hello")
    (tmp_path / "f.npy").write_bytes(b"hello")
    (tmp_path / "g.mat").write_bytes(b"hello")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "real.npy", np.abs(data))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume/image"] = np.zeros((3, 4))
    savemat(tmp_path / "two.mat", {"a": data[0], "b": data[0]})
    for name, message in (
        ("a.dcm", "DICOM image, not k-space"), ("b.h5", "TIFF image, not k-space"), ("c.h5", "DICOM image"),
        ("folder", "a folder, not k-space"), ("d.h5", "cannot be read as HDF5"), ("e.txt", "not known"),
        ("f.npy", "cannot be read"), ("g.mat", "cannot be read"), ("real.npy", "k-space is complex"),
        ("other.h5", "volume/image"), ("two.mat", "Say which"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            open_kspace(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no file"):
        open_kspace(tmp_path / "none.h5")


def test_values_that_are_not_finite_or_all_zero_are_refused(data: Any) -> None:
    data[1, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="slice 1: k-space holds values that are not finite"):
        open_kspace(data).read(1)
    with pytest.raises(ValueError, match="0 everywhere"):
        KSpace(np.zeros_like(data)).read(0)


def test_axes_that_cannot_be_are_refused(data: Any) -> None:
    for axes, message in (("YX", "2 dimensions"), ("ZCYY", "once each"), ("ZCQX", "once each")):
        with pytest.raises(ValueError, match=message):
            open_kspace(data, axes=axes)
    with pytest.raises(ValueError, match="2 to 4 dimensions"):
        open_kspace(data[None])
