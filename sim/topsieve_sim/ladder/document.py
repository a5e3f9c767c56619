"""The ladder as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from topsieve_sim.ladder.climb import Ladder, Step
from topsieve_sim.ladder.features import FEATURES, IN_LOOP

COLUMNS = (
    "machine",
    "cycles",
    "latency (us)",
    "DRAM (MB)",
    "energy (uJ)",
    "area (mm2)",
    "faster, all so far",
    "less energy, all so far",
    "faster, alone",
    "bytes, alone",
    "area, alone (mm2)",
)

_INTRODUCTION = """# The ladder

Each feature of the successor on the published machine `spatten`, alone and on top of those before it: same traces, same
multipliers, bandwidth, clock and 40 nm table. [successor.md](successor.md) describes the features and what is assumed.
Written by `topsieve ladder --out docs/successor-ladder.md`.

*faster* is cycles of the published machine over cycles; *alone* compares with the published machine, or, for a feature that
needs another, with that one on it. Areas are those of [energy.md](energy.md).
"""


def rows(ladder: Ladder) -> list[list[str]]:
    """The table of one workload, by `COLUMNS`."""

    def numbers(step: Step, area_mm2: float) -> list[str]:
        return [
            f"{step.cycles:,}",
            f"{step.latency_us:,.1f}",
            f"{step.dram_bytes * 1e-6:,.2f}",
            f"{step.energy_pj * 1e-6:,.1f}",
            f"{area_mm2:.2f}",
        ]

    base = ladder.published
    table = [["`spatten`", *numbers(base, ladder.area_mm2), "1.00", "1.00", "", "", ""]]
    for rung in ladder.rungs:
        table.append(
            [
                f"+ {rung.feature}",
                *numbers(rung.together, rung.area_mm2),
                f"{base.cycles / rung.together.cycles:.2f}",
                f"{base.energy_pj / rung.together.energy_pj:.2f}",
                f"{rung.speedup_alone:.2f}",
                f"{100 * (rung.alone.dram_bytes / rung.alone_base.dram_bytes - 1):+.1f} %",
                f"{rung.area_alone_mm2:+.3f}",
            ]
        )
    return table


def markdown(ladders: Sequence[Ladder]) -> str:
    """The page `docs/successor-ladder.md`."""
    parts = [_INTRODUCTION]
    for in_loop, heading in ((False, "On the ideal memory"), (True, "In closed loop with the DRAM")):
        parts.append(f"## {heading}\n")
        for ladder in ladders:
            if ladder.in_loop is in_loop:
                parts.append(f"### {ladder.title}\n")
                lines = [COLUMNS, ["---"] * len(COLUMNS), *rows(ladder)]
                parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    parts.append("## Fields\n")
    lines = [("feature", "fields"), ("---", "---")]
    for feature in dict.fromkeys((*FEATURES, *IN_LOOP)):
        fields = ", ".join(f"`{field}`" for field in feature.fields) or "none: the trace's heads share keys"
        lines.append((feature.name, fields))
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(parts)


def as_json(ladders: Sequence[Ladder]) -> str:
    """Every number with full digits."""
    return json.dumps([asdict(ladder) for ladder in ladders], indent=2, ensure_ascii=False) + "\n"
