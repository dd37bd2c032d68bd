"""Torch's threads sleep while they wait, unless the user says otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_ssdenoise._threads import share_processor

if TYPE_CHECKING:
    import pytest


def test_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    share_processor()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_processor()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
