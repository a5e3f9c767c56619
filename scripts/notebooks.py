"""The notebooks as Jupyter files without outputs, and their figures for docs/.

`python scripts/notebooks.py` writes notebooks/*.ipynb from notebooks/*.py (the py:percent form, which is the one to edit);
`--figures docs/notebooks` runs them as well, at full size, and keeps what they draw.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"
MARKER = "# %%"


def cells(text: str) -> list[tuple[str, str]]:
    """Kind ("markdown" or "code") and source of each cell of a py:percent text; what stands before the first is left out."""
    found = []
    for part in text.split(f"\n{MARKER}")[1:]:
        head, _, body = part.partition("\n")
        source = body.strip("\n")
        if head.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in source.splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", source))
    return found


def jupyter(text: str) -> str:
    """The notebook file of a py:percent text: the same for the same text, without outputs."""
    content: dict[str, Any] = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    content["metadata"] = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, (kind, source) in enumerate(cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        content["cells"].append(cell)
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def keep_figures(notebook: Path, folder: Path) -> None:
    """Run `notebook` and write its figures into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    start = time.perf_counter()
    runpy.run_path(str(notebook), run_name="__main__")
    for place, number in enumerate(pyplot.get_fignums(), start=1):
        path = folder / f"{notebook.stem}-{place}.png"
        # Equal figures are equal bytes: no version of matplotlib in the file.
        pyplot.figure(number).savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close("all")
    print(f"{notebook.name}: {time.perf_counter() - start:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, help="run the notebooks and write their figures into this folder")
    parser.add_argument("--only", help="stem of one notebook")
    given = parser.parse_args()
    os.environ.pop("TOPSIEVE_SMALL_NOTEBOOKS", None)
    for notebook in sorted(FOLDER.glob("*.py")):
        if given.only not in (None, notebook.stem):
            continue
        notebook.with_suffix(".ipynb").write_text(jupyter(notebook.read_text(encoding="utf-8")), encoding="utf-8")
        if given.figures:
            given.figures.mkdir(parents=True, exist_ok=True)
            keep_figures(notebook, given.figures)


if __name__ == "__main__":
    main()
