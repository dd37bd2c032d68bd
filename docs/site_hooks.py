"""What the site needs beyond Markdown: pages from outside this folder, settings from the code, and the navigation.

- README, CONTRIBUTING, CHANGELOG and benchmarks/README.md become pages; links to and from them are made to fit.
- A line ``<!-- settings: n2v -->`` becomes the table of that algorithm's settings, ``<!-- about: n2v -->`` its
  description and paper, both from its class.
- The navigation takes the pages that are there; one that no section names comes under "More".
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# File in the repository -> page of the site.
BORROWED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "src/napari_ssdenoise/weights/README.md": "weights.md",
}
SECTIONS = {
    "Start": ["index.md", "install.md", "gallery.md"],
    "Tutorials": [
        *("tutorials/2d.md", "tutorials/3d.md", "tutorials/time-lapse.md", "tutorials/super-resolution.md"),
        *("tutorials/big-data.md", "tutorials/mri.md"),
    ],
    "Methods": [
        *("methods/index.md", "methods/blindspot.md", "methods/n2v.md", "methods/n2n.md", "methods/nb2nb.md"),
        *("methods/sasl.md", "methods/zs-n2n.md", "methods/supervised.md", "methods/mzsr.md", "methods/zssr.md"),
        "comparison.md",
    ],
    "Guides": [
        *(
            "formats.md",
            "super-resolution.md",
            "large-volumes.md",
            "cluster.md",
            "batch.md",
            "models.md",
            "reproducibility.md",
        ),
        *("sample-complexity.md", "mri-*.md", "add-an-algorithm.md"),
    ],
    "Reference": [
        *("reference/cli.md", "reference/api.md", "benchmarks.md", "weights.md", "changelog.md", "contributing.md"),
    ],
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)([^)]*\))")
DIRECTIVE = re.compile(r"^<!-- (settings|about): ([\w-]+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that live elsewhere in the repository."""
    for source, page in BORROWED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf8")))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def navigation(pages: list[str]) -> list[dict[str, Any]]:
    """Put the pages that are there into sections."""
    left = sorted(pages)
    nav: list[dict[str, Any]] = []
    for section, wanted in SECTIONS.items():
        found = []
        for name in wanted:
            chosen = [p for p in left if re.fullmatch(re.escape(name).replace(r"\*", ".*"), p)]
            found += chosen
            left = [p for p in left if p not in chosen]
        if found:
            nav.append({section: found})
    return [*nav, {"More": left}] if left else nav


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what comes from the code, and turn links between files into links between pages."""
    markdown = DIRECTIVE.sub(lambda found: (settings_table if found[1] == "settings" else about)(found[2]), markdown)
    here = page.file.src_uri
    sources = {target: source for source, target in BORROWED.items()}
    return LINK.sub(lambda found: _link(found, sources.get(here, f"docs/{here}"), here), markdown)


def _link(found: re.Match[str], source: str, here: str) -> str:
    """Rewrite one link of a file, as it is in the repository, to the same page of the site."""
    text, target, rest = found.groups()
    if ":" in target:
        return found[0]
    path = (ROOT / source).parent.joinpath(target).resolve()
    inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else target
    if not inside.startswith("docs/") and inside not in BORROWED:
        return text  # a file of the repository that is no page
    page = BORROWED.get(inside, inside.removeprefix("docs/"))
    return f"[{text}]({'../' * here.count('/')}{page}{rest}"


def settings_table(key: str) -> str:
    """Write the settings of an algorithm as a table, as the command line and Python know them."""
    from napari_ssdenoise.algorithms import list_algorithms, settings

    rows = ["| setting | in Python | default | range | meaning |", "|---|---|---|---|---|"]
    for setting in settings(list_algorithms()[key]):
        limits = " \\| ".join(setting.choices)
        if setting.min is not None:
            limits = f"{setting.min:g} to {setting.max:g}" if setting.max is not None else f"from {setting.min:g}"
        default = "auto" if setting.default is None else str(setting.default) or "none"
        if setting.type is bool:
            default = "on" if setting.default else "off"
        meaning = setting.help.replace("|", "\\|")
        rows.append(f"| {setting.label} | `{setting.name}` | {default} | {limits or '-'} | {meaning} |")
    return "\n".join(rows)


def about(key: str) -> str:
    """Write what an algorithm's class says about itself, and its paper."""
    from napari_ssdenoise.algorithms import list_algorithms

    kind = list_algorithms()[key]
    text = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
    return f"{text}\n\n*{kind.reference}*\n\nKey: `{key}`, in Python `{kind.__module__}.{kind.__name__}`."
