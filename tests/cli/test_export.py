"""Packages of the BioImage Model Zoo, from the command line."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.mark.skipif(not find_spec("bioimageio"), reason="the extra bioimage is not installed")
def test_a_model_becomes_a_package_that_is_a_model(run, model, noisy, last_json, tmp_path):
    found = run("export", model, "-o", "cells.zip", "--sample", noisy, "--author", "Ada Lovelace")
    assert "--license" in found.stdout
    assert "--author" not in found.stdout
    assert "BioImage Model Zoo" in run("info", "cells.zip").stdout
    assert last_json(run("info", "cells.zip", "--json"))["algorithm"] == "n2v"
    run("denoise", noisy, "-m", "cells.zip", "-o", "clean.tif")
    assert (tmp_path / "clean.tif").is_file()


def test_a_foreign_package_is_refused_in_a_line(run, tmp_path, noisy):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("rdf.yaml", "type: model")
    for command in (("info", "other.zip"), ("denoise", noisy, "-m", "other.zip", "-o", "clean.tif")):
        assert "another program" in run(*command, code=1).stderr
