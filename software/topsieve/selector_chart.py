"""Which top-k selector, and when: cycles against n, k and P beside area, drawn for `docs/topk-engine.md`.

`python -m topsieve.selector_chart docs/topk-selectors.png docs/resources.md` draws it; areas are read from the resource
page, cycles come from the golden models.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from topsieve.plots import MARKERS, PALETTE, new_figure, write_figure
from topsieve_sim.errors import InputError
from topsieve_sim.golden.topk import SELECTOR_CODES, select_cycles

SCORE_BITS = 12
DRAWS = 100
SIZES = (32, 64, 128, 256, 512, 1024)
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
PARALLELISM = (1, 2, 4, 8, 16, 32)


def mean_cycles(selector: str, n: int, k: int, parallelism: int, draws: int = DRAWS) -> float:
    """Mean selection cycles over uniform random scores of `SCORE_BITS` bits; one draw where the data do not matter."""
    generator = np.random.default_rng([n, k, parallelism])
    rows = generator.integers(0, 1 << SCORE_BITS, (draws if selector == "quick" else 1, n)).astype(np.int64)
    code = SELECTOR_CODES[selector]
    return float(np.mean([select_cycles(row, k, code, parallelism, SCORE_BITS, 0xACE1)[0] for row in rows]))


def measured_luts(resources: Path) -> dict[str, int]:
    """LUTs of each selector at the `ecp5` preset with 8 lanes, placed on ECP5, from the resource page.

    Raises
    ------
    InputError
        the page cannot be read or has no row for a selector.
    """
    try:
        text = resources.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(resources)) from error
    found = {}
    for selector in SELECTOR_CODES:
        machine = rf"ecp5, topk\.selector={selector}, topk\.parallelism=8"
        row = re.search(rf"\| topk \| {machine} \| Lattice ECP5 \| (\d+) \|", text)
        if row is None:
            raise InputError("no ECP5 row for a selector", source=str(resources), value=selector)
        found[selector] = int(row[1])
    return found


def draw(path: Path, resources: Path) -> None:
    """Write the chart to `path` (PNG)."""
    luts = measured_luts(resources)
    figure, panels = new_figure(13.0, 3.2, columns=4)
    for colour, marker, selector in zip(PALETTE, MARKERS, SELECTOR_CODES, strict=False):
        by_size = [mean_cycles(selector, n, n // 2, 16) for n in SIZES]
        by_share = [mean_cycles(selector, 1024, int(1024 * share), 16) for share in SHARES]
        by_lanes = [mean_cycles(selector, 1024, 512, lanes) for lanes in PARALLELISM]
        panels[0].plot(SIZES, by_size, color=colour, marker=marker, label=selector)
        panels[1].plot([int(1024 * share) for share in SHARES], by_share, color=colour, marker=marker)
        panels[2].plot(PARALLELISM, by_lanes, color=colour, marker=marker)
        panels[3].bar(selector, luts[selector], color=colour)
    titles = ("against n (k = n/2, P = 16)", "against k (n = 1024, P = 16)", "against P (n = 1024, k = 512)")
    for panel, title, label in zip(panels, titles, ("n", "k", "P"), strict=False):
        panel.set_title(title)
        panel.set_xlabel(label)
    panels[0].set_ylabel("mean cycles of a selection")
    panels[0].legend(frameon=False)
    panels[2].set_xscale("log", base=2)
    panels[2].set_yscale("log")
    panels[3].set_title("LUTs on ECP5 (P = 8, capacity 256)")
    write_figure(figure, path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
