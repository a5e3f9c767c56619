"""The measured part of docs/gpu.md, from the committed files: `python -m topsieve.gpu.page docs/gpu.md`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from topsieve.gpu.machine import MEASURED
from topsieve.gpu.measurement import Measurement, Row, Timing, load_measurement
from topsieve.results import write_text
from topsieve_sim.errors import InputError

BEGIN = "<!-- measured: written by make gpu-bench -->"
END = "<!-- end of measured -->"
NOTHING = "**No time has been measured yet.** Tile sizes were chosen by what the compiler reports, not by tuning."


def measured_section(measurements: Sequence[Measurement]) -> str:
    """Markdown of all measurements; says so where there is none."""
    if not measurements:
        return NOTHING
    return "\n\n".join("\n".join(_lines(one)) for one in measurements)


def _lines(measurement: Measurement) -> Iterator[str]:
    document = measurement.document
    ceilings = document.ceilings
    yield (
        f"**{measurement.device}**, {document.date.isoformat()}, {document.dtype}, torch {document.machine.torch}, Triton "
        f"{document.machine.triton}. Ceilings in the same run: copy {ceilings.copy_bytes_per_s / 1e12:.2f} TB/s, matrix "
        f"product {ceilings.matmul_flops_per_s / 1e12:.0f} TFLOP/s. Clocks before: {_clocks(document.clock_before)}; "
        f"after: {_clocks(document.clock_after)}."
    )
    yield ""
    yield "| kernel | shape | check | time us | floor us | floor / time | board W | board uJ | ours / other ways |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for row in document.rows:
        yield f"| `{row.kernel}` | {row.shape} | {'ok' if row.passed else 'WRONG'} | {_numbers(row)} | {_others(row)} |"


def _clocks(state: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in state.items()) or "not known"


def _numbers(row: Row) -> str:
    ours = row.ours
    return (
        f"{ours.median_us:.1f} | {row.floor_us:.1f} | {row.fraction_of_floor:.2f} | {_power(ours)} | "
        f"{'–' if ours.board_power_w is None else f'{ours.board_power_w * ours.median_us:.0f}'}"
    )


def _power(timing: Timing) -> str:
    return "–" if timing.board_power_w is None else f"{timing.board_power_w:.0f}"


def _others(row: Row) -> str:
    ratios = (f"{name} {row.ours.median_us / timing.median_us:.2f}" for name, timing in row.timings() if name != "ours")
    return ", ".join(ratios)


def with_section(page: str, section: str, source: str) -> str:
    """`page` with what stands between its two marks replaced.

    Raises
    ------
    InputError
        a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError("the page has no place for measured times", source=source, allowed=f"{BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the committed measurements into the page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("--measured", type=Path, default=MEASURED, help="folder of the measurements")
    given = parser.parse_args(arguments)
    section = measured_section([load_measurement(path) for path in sorted(given.measured.glob("*.json"))])
    write_text(given.page, with_section(given.page.read_text(encoding="utf-8"), section, str(given.page)))


if __name__ == "__main__":
    main()
