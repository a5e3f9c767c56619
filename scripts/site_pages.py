"""Pages of the documentation site that are made, not written: the README as its first page, and a page for each module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = ("software/topsieve", "sim/topsieve_sim", "rtl/topsieve_rtl", "kernels/topsieve_kernels")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages to those in `docs/`."""
    files.append(File.generated(config, "index.md", content=first_page((ROOT / "README.md").read_text("utf-8"))))
    rows = []
    for module, source in modules():
        files.append(File.generated(config, f"reference/{module}.md", content=f"::: {module}\n"))
        summary = (ast.get_docstring(ast.parse(source.read_text("utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
        rows.append(f"| [`{module}`]({module}.md) | {summary.replace('|', chr(92) + '|')} |\n")
    table = "| module | what it is |\n|---|---|\n" + "".join(rows)
    files.append(File.generated(config, "reference/index.md", content=f"# Reference\n\n{table}"))
    return files


def modules() -> list[tuple[str, Path]]:
    """Every module that is not private, by name."""
    found = []
    for package in PACKAGES:
        folder = ROOT / package
        for source in sorted(folder.rglob("*.py")):
            parts = source.relative_to(folder.parent).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not any(part.startswith("_") for part in parts):
                found.append((".".join(parts), source))
    return sorted(found)


def first_page(readme: str) -> str:
    """The README with links as they are from `docs/`; what lies outside is named, not linked."""
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", readme)
    return re.sub(r"\[([^\]]+)\]\((?![a-z]+:|#)(?![\w-]+\.(?:md|png))[^)]*\)", r"\1", text)
