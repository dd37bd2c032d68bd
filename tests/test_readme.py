"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_python_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    before, after = re.search(r"([\d.]+) -> ([\d.]+)\s*$", capsys.readouterr().out).groups()  # type: ignore[union-attr]
    assert float(after) > float(before) + 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cell.model", "clean.ome.zarr"]
