"""Put the manifest where npe2 looks for it.

The one real ``napari.yaml`` lies at the root of the repository; npe2 finds a manifest only inside the package.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "napari.yaml"
PACKAGE = "napari_ssdenoise"


class ManifestHook(BuildHookInterface):  # type: ignore[type-arg]
    """Add the manifest to a wheel; link it into the source tree for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        manifest = Path(self.root, NAME)
        if version == "editable":
            link_manifest(manifest, Path(self.root, "src", PACKAGE, NAME))
        else:
            build_data["force_include"][str(manifest)] = f"{PACKAGE}/{NAME}"


def link_manifest(manifest: Path, link: Path) -> None:
    """Replace ``link`` by a relative symlink to the manifest, or by a copy where links are not allowed."""
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(Path("..", "..", manifest.name))
    except OSError:  # Windows without developer mode, some network file systems
        shutil.copyfile(manifest, link)
