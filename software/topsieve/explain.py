"""Pictures that explain a run: where it stands under the roofs, what each unit waited for, what happened when.

A picture is a figure in the style of `topsieve.plots`; `write_figure` writes it as PNG or PDF. matplotlib is loaded by the
functions, never by the import.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from topsieve.plots import MARKERS, PALETTE, new_figure
from topsieve_sim.report import Report, Stall, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from topsieve_sim.engine.rows import RowTimes

BUSY = "busy"
# Colour, hatch and meaning of what a unit does in a cycle.
ACTIVITIES: dict[str, tuple[str, str, str]] = {
    BUSY: (PALETTE[0], "", "works"),
    Stall.INPUT: (PALETTE[1], "//", "waits for the unit before it"),
    Stall.MEMORY: (PALETTE[5], "xx", "waits for memory"),
    Stall.DOWNSTREAM: (PALETTE[3], "..", "waits for room behind it"),
    Stall.DRAINED: ("#BBBBBB", "", "its share is done or not begun"),
    Stall.IDLE: ("#EEEEEE", "", "not used"),
}
# A share that is narrower has no room for its number.
NARROWEST_LABEL = 0.055
# A cause that this page does not know is named as the report names it.
UNKNOWN = (PALETTE[6], "++", "")
ROOF = "#444444"
# Of a slice of the timeline, from no busy cycle to busy in all.
BUSY_SHADES = ("#F2F6FA", PALETTE[4], PALETTE[0], "#003A5D")
# Slices of a unit that are outlined; of more, the outlines would be all that is seen.
MOST_OUTLINED = 100
# Points of a picture over time; more would lie over each other.
PICTURE_POINTS = 500


@dataclass(frozen=True)
class Point:
    """One point under the roofs: attention operations a byte, and operations a second."""

    name: str
    flops_per_byte: float
    tflops: float


def run_point(name: str, report: Report) -> Point:
    """The attention of a whole run; what else moves bytes or takes time counts against it."""
    return Point(name, _ratio(report.attention_flops, report.dram_bytes_total), report.attention_tflops)


def layer_points(report: Report) -> list[Point]:
    """The attention of each layer.

    A report has no operations of attention by layer: they are divided like heads x queries x (keys + kept values).
    """
    weights: dict[int, int] = {}
    for token in report.tokens:
        work = token.heads * token.queries * (token.keys + token.kept_values)
        weights[token.layer] = weights.get(token.layer, 0) + work
    whole = sum(weights.values())
    points = []
    for row in report.layers:
        if weights.get(row.layer) and row.cycles:
            flops = report.attention_flops * weights[row.layer] / whole
            seconds = report.accelerator.microseconds(row.cycles) * 1e-6
            points.append(Point(str(row.layer), _ratio(flops, row.dram_bytes), flops / seconds * 1e-12))
    return points


def peaks(report: Report) -> tuple[float, float]:
    """The roofs of a machine: TFLOPS of both arrays, and bytes a second in TB/s."""
    machine = report.accelerator
    multipliers = machine.dot_product.multipliers + machine.weighted_sum.multipliers
    return 2 * multipliers * machine.clock_mhz * 1e-6, machine.memory.bytes_per_cycle * machine.clock_mhz * 1e-6


def roofline(points: Sequence[Point], roofs: tuple[float, float], machine: str, layers: Sequence[Point] = ()) -> Figure:
    """Operations a second over operations a byte, both logarithmic, under the two roofs of `machine`.

    Parameters
    ----------
    points : runs, a marker and a line of the legend each.
    roofs : TFLOPS and TB/s.
    layers : of the one run, small numbered circles.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    compute, bandwidth = roofs
    figure, (axes,) = new_figure(6.4, 4.6)
    shown = [point for point in (*points, *layers) if point.flops_per_byte and point.tflops]
    ridge = compute / bandwidth
    low = min([ridge / 8, *(point.flops_per_byte / 2 for point in shown)])
    high = max([ridge * 8, *(point.flops_per_byte * 2 for point in shown)])
    bottom = min([low * bandwidth, *(point.tflops / 2 for point in shown)])
    axes.loglog([low, ridge, high], [low * bandwidth, compute, compute], color=ROOF, linewidth=1.6, zorder=2)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, compute * 1.8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.text(high / 1.06, compute * 1.06, f"{compute:.3g} TFLOPS", ha="right", va="bottom", color=ROOF, fontsize=8)
    middle = (low * ridge) ** 0.5
    axes.text(
        middle, middle * bandwidth * 1.1, f"{1e3 * bandwidth:.3g} GB/s", rotation=math.degrees(math.atan(bandwidth)),
        transform_rotates_text=True, rotation_mode="anchor", ha="center", va="bottom", color=ROOF, fontsize=8,
    )  # fmt: skip
    shades = LinearSegmentedColormap.from_list("layers", ["#D6EBF8", PALETTE[4], "#003A5D"])
    for place, point in enumerate(layers):
        shade = shades(place / max(len(layers) - 1, 1))
        first, last = layers[0].name, layers[-1].name
        label = f"its layers, {first} (light) to {last} (dark)" if place == len(layers) // 2 else None
        axes.plot(
            point.flops_per_byte, point.tflops, "o", color=shade, markeredgecolor="#555555", markeredgewidth=0.5,
            markersize=6, linestyle="none", label=label, zorder=3,
        )  # fmt: skip
    for index, point in enumerate(points):
        marker, colour = MARKERS[index % len(MARKERS)], PALETTE[(index + (1 if layers else 0)) % len(PALETTE)]
        axes.plot(
            point.flops_per_byte, point.tflops, marker, color=colour, markeredgecolor="white", markersize=9,
            linestyle="none", label=point.name, zorder=5,
        )  # fmt: skip
    axes.set_xlabel("attention operations a byte of DRAM traffic (FLOP/B)")
    axes.set_ylabel("attention operations a second (TFLOPS)")
    axes.set_title(f"Under the roofs of {machine}", fontsize=10)
    _legend_below(axes, -0.15)
    return figure


def stall_shares(report: Report) -> dict[Unit, dict[str, float]]:
    """Share of all cycles that each unit spent on each activity; each unit's shares sum to 1."""
    return {
        row.unit: {
            BUSY: _ratio(row.busy_cycles, report.cycles),
            **{cause.value: _ratio(count, report.cycles) for cause, count in row.stall_cycles.items()},
        }
        for row in report.units
    }


def stall_chart(report: Report, title: str) -> Figure:
    """A bar a unit, all of equal length: every cycle of every unit has exactly one colour."""
    from matplotlib.patches import Patch

    shares = stall_shares(report)
    names = [_unit_name(unit) for unit in shares]
    figure, (axes,) = new_figure(7.0, 0.36 * len(names) + 1.9)
    left = [0.0] * len(names)
    drawn = [key for key in _activities(report) if any(share.get(key) for share in shares.values())]
    for key in drawn:
        colour, hatch, _ = ACTIVITIES.get(key, UNKNOWN)
        widths = [share.get(key, 0.0) for share in shares.values()]
        axes.barh(names, widths, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.6, height=0.74)
        # A number stands on its colour alone, not on the hatch.
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1.0} if hatch else None
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= NARROWEST_LABEL:
                axes.text(
                    start + width / 2, place, f"{100 * width:.0f} %", ha="center", va="center", fontsize=7.5,
                    color="black" if _light(colour) else "white", bbox=box,
                )  # fmt: skip
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(visible=False)
    axes.set_xlabel(f"share of {report.cycles:,} cycles")
    axes.set_title(title, fontsize=10)
    patches = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=meaning or key)
        for key, (colour, hatch, meaning) in ((key, ACTIVITIES.get(key, UNKNOWN)) for key in drawn)
    ]
    _legend_below(axes, -0.42 / len(names) - 0.1, handles=patches, columns=3)
    return figure


def timeline_chart(report: Report, title: str) -> Figure:
    """A line a unit over time: the darker, the larger the busy share of the slice."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    units = [unit for unit in Unit if any(piece.unit is unit for piece in report.timeline)]
    figure, (axes,) = new_figure(8.6, 0.34 * len(units) + 1.7)
    colours = LinearSegmentedColormap.from_list("busy", BUSY_SHADES)
    scale = report.accelerator.microseconds(1)
    for place, unit in enumerate(units):
        pieces = [piece for piece in report.timeline if piece.unit is unit]
        axes.broken_barh(
            [(piece.start_cycle * scale, piece.duration_cycles * scale) for piece in pieces],
            (place - 0.38, 0.76),
            facecolors=[colours(piece.busy_cycles / piece.duration_cycles) for piece in pieces],
            edgecolor="white",
            linewidth=0.6 if len(pieces) <= MOST_OUTLINED else 0,
        )
    axes.set_yticks(range(len(units)), [_unit_name(unit) for unit in units])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, report.latency_us)
    axes.set_xlabel("time (µs)")
    axes.set_title(title, fontsize=10)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 100), colours), ax=axes, pad=0.015, aspect=14)
    bar.set_label("busy cycles of the slice (%)")
    bar.outline.set_visible(False)
    return figure


def rows_chart(times: RowTimes) -> Figure:
    """The counters of `times` over time, one panel each: memory bandwidth, then how full each queue is.

    A counter with more steps than the picture has points is drawn as its mean over each point's share of the time.
    """
    figure, panels = new_figure(8.0, 1.05 * len(times.counters) + 0.9, rows=len(times.counters))
    scale = times.config.microseconds(1)
    for index, (axes, counter) in enumerate(zip(panels, times.counters, strict=True)):
        cycles, values = counter.cycles, counter.values
        averaged = len(cycles) > PICTURE_POINTS
        if averaged:
            cycles, values = mean_over_points(cycles, values, times.cycles, PICTURE_POINTS)
        when = [*(cycle * scale for cycle in cycles), times.cycles * scale]
        levels = [*values, values[-1]]
        colour = PALETTE[index % len(PALETTE)]
        axes.fill_between(when, levels, step="post", color=colour, alpha=0.35, linewidth=0)
        axes.plot(when, levels, drawstyle="steps-post", color=colour, linewidth=0.8)
        axes.set_xlim(0, times.cycles * scale)
        axes.set_ylim(0, max(1.0, *levels) * 1.15)
        axes.locator_params(axis="y", nbins=4)
        axes.set_ylabel(counter.unit)
        axes.set_title(counter.name + (", mean" if averaged else ""), loc="left", fontsize=8)
        axes.tick_params(labelbottom=index + 1 == len(panels))
    panels[-1].set_xlabel("time (µs)")
    figure.suptitle(f"{times.name}, {times.cycles:,} cycles", fontsize=10)
    return figure


def mean_over_points(
    cycles: Sequence[int], values: Sequence[float], end: int, points: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Steps `values` from `cycles` on until `end`, averaged over at most `points` equal stretches; 0 before the first."""
    width = -(-end // points)
    borders = [*range(0, end, width), end]
    area, place, level, now = 0.0, 0, 0.0, 0
    areas = []
    for border in borders[1:]:
        while place < len(cycles) and cycles[place] < border:
            area += level * (cycles[place] - now)
            now, level = cycles[place], values[place]
            place += 1
        area += level * (border - now)
        now = border
        areas.append(area)
        area = 0.0
    lengths = (after - before for before, after in itertools.pairwise(borders))
    return tuple(borders[:-1]), tuple(part / length for part, length in zip(areas, lengths, strict=True))


def percentages(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares that sum to 1 as percentages of one digit that sum to 100.0: the largest remainders are rounded up."""
    exact = {key: 1000 * share for key, share in shares.items()}
    whole = {key: int(value) for key, value in exact.items()}
    missing = round(sum(exact.values())) - sum(whole.values())
    for key in sorted(exact, key=lambda name: (whole[name] - exact[name], name))[:missing]:
        whole[key] += 1
    return {key: value / 10 for key, value in whole.items()}


def _activities(report: Report) -> list[str]:
    """Activities in the order of `ACTIVITIES`, then those it does not know."""
    causes = {cause.value for row in report.units for cause in row.stall_cycles}
    return [*ACTIVITIES, *sorted(causes - set(ACTIVITIES))]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _light(colour: str) -> bool:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45


def _unit_name(unit: Unit) -> str:
    return unit.value.replace("_", " ").replace("topk", "top-k")


def _legend_below(axes: Axes, place: float, handles: Sequence[Any] | None = None, columns: int = 2) -> None:
    shown = {} if handles is None else {"handles": handles}
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, place),
        ncols=columns,
        frameon=False,
        fontsize=8,
        handlelength=1.6,
        **shown,
    )
