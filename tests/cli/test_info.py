"""What the program says about models, images and algorithms."""

from __future__ import annotations

import numpy as np

from napari_ssdenoise.algorithms import list_algorithms, settings
from napari_ssdenoise.io import write_volume
from napari_ssdenoise.volume import Volume


def test_a_model(run, model, last_json):
    text = run("info", model).stdout
    assert "Noise2Void" in text
    assert "noisy (YX 64 x 64, float32)" in text
    found = last_json(run("info", model, "--json"))
    assert found["kind"] == "model"
    assert found["algorithm"] == "n2v"
    assert found["record"]["steps"] == 3


def test_an_image(run, tmp_path, last_json):
    data = np.arange(2 * 3 * 8 * 9, dtype=np.uint16).reshape(2, 3, 8, 9)
    units = (None, "micrometer", "micrometer", "micrometer")
    image = Volume(data, "CZYX", (1, 0.5, 0.1, 0.1), units, channel_names=("actin [red]", "DNA"))
    write_volume(tmp_path / "a.ome.zarr", image)
    found = last_json(run("info", "a.ome.zarr", "--json"))
    assert found["kind"] == "image"
    assert found["axes"] == "CZYX"
    assert found["scale"] == [1, 0.5, 0.1, 0.1]
    assert found["channels"] == ["actin [red]", "DNA"]
    assert found["middle plane"]["max"] == data[1, 1].max()
    assert "actin [red]" in run("info", "a.ome.zarr").stdout


def test_other_axes_and_odd_images(run, tmp_path, last_json):
    np.save(tmp_path / "a.npy", np.full((4, 5, 6), np.nan))
    found = last_json(run("info", "a.npy", "--axes", "TYX", "--json"))
    assert found["axes"] == "TYX"
    assert "middle plane" not in found
    np.save(tmp_path / "b.npy", np.zeros((5, 6), bool))
    assert last_json(run("info", "b.npy", "--json"))["dtype"] == "bool"


def test_the_algorithms(run, last_json):
    found = last_json(run("algorithms", "--json"))["algorithms"]
    assert [entry["key"] for entry in found] == [*list_algorithms(), "ssdu-mri"]
    for entry in found[:-1]:
        algorithm = list_algorithms()[entry["key"]]
        assert entry["reference"] == algorithm.reference
        assert [setting["name"] for setting in entry["settings"]] == [s.name for s in settings(algorithm)]
    text = run("algorithms").stdout
    assert "Noise2Void" in text
    assert "--masked-percent" in text
