"""What the program says about noise."""

from __future__ import annotations

import numpy as np

from napari_ssdenoise.io import write_volume
from napari_ssdenoise.volume import Volume


def test_a_report_and_its_json(run, noisy, last_json):
    text = run("diagnose", noisy).stdout
    assert "deviation of the noise" in text
    assert "noise averages to zero" in text
    assert "recommended: --algorithm" in text
    result = run("diagnose", noisy, "--json")
    found = last_json(result)
    assert "recommended" in result.stderr
    assert found["path"] == str(noisy)
    assert abs(found["sigma"]["value"] - 0.2) < 0.03
    assert found["noise"] == "gaussian"
    assert found["algorithm"] == "blindspot"
    assert found["settings"]["noise"] == "gaussian"
    assert [a["holds"] for a in found["assumptions"]][:2] == [True, True]


def test_target_offset_and_axes(run, tmp_path, clean_image, last_json):
    rng = np.random.default_rng(1)
    clean = np.kron(clean_image, np.ones((2, 2)))
    frames = np.stack([100 + rng.poisson(80 * clean + 20) for _ in range(3)]).astype(np.uint16)
    for number, frame in enumerate(frames):
        write_volume(tmp_path / f"{number}.tif", Volume(frame, "YX"))
    found = last_json(run("diagnose", "0.tif", "--target", "1.tif", "--offset", 100, "--json"))
    assert (found["algorithm"], found["settings"]) == ("n2n", {"pairs": "target"})
    assert found["offset"]["value"] == 100
    assert "(given)" in run("diagnose", "0.tif", "--offset", 100).stdout
    np.save(tmp_path / "frames.npy", frames)
    found = last_json(run("diagnose", "frames.npy", "--axes", "TYX", "--json"))
    assert found["settings"]["pairs"] == "frames"
    assert len(found["correlation"]["T"]) == 2


def test_wrong_inputs(run, tmp_path, noisy):
    assert "no file" in run("diagnose", "missing.tif", code=1).stderr
    np.save(tmp_path / "flat.npy", np.ones((50, 50)))
    assert "same value everywhere" in run("diagnose", "flat.npy", code=1).stderr
    assert "differ in shape" in run("diagnose", noisy, "--target", "flat.npy", code=1).stderr
    run("diagnose", code=2)
