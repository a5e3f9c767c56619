"""The plots of comparisons and sweeps, in one style: colours that colour-blind readers tell apart, the same bytes every time.

Nothing here knows about models or machines: the arguments are plain numbers and names. matplotlib is loaded by the
functions, never by the import.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topsieve_sim.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): eight colours that all common forms of colour vision separate.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
# Letter of `topsieve.subjects.survival`: colour and meaning.
SURVIVAL = {
    ".": ("#E8E8E8", "gone"),
    "S": (PALETTE[1], "merged with others"),
    "A": (PALETTE[0], "a token of its own"),
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "figure.dpi": 120,
    "savefig.dpi": 120,
    "pdf.fonttype": 42,
    "hatch.linewidth": 0.6,
}
MAX_WORDS = 64


def plot_fidelity_against_cycles(
    cycles: Mapping[str, int], fidelity: Mapping[str, float], path: str | Path, machine: str, measure: str
) -> None:
    """Scatter of a quality over the cycles on `machine`, one marker a method.

    Parameters
    ----------
    cycles, fidelity : by method name, same keys.
    path : of the PNG or PDF.
    measure : what `fidelity` holds.

    Raises
    ------
    InputError
        the file cannot be written.
    """
    figure, (axes,) = new_figure(6.4, 4.2)
    for index, name in enumerate(cycles):
        # Each round of colours shifts the markers by one, so that no two of 64 methods look alike.
        marker, colour = MARKERS[(index + index // len(PALETTE)) % len(MARKERS)], PALETTE[index % len(PALETTE)]
        axes.plot(cycles[name], fidelity[name], marker, color=colour, markersize=8, label=name, linestyle="none")
    axes.margins(0.1)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set_xlabel(f"cycles on {machine}")
    axes.set_ylabel(measure)
    axes.set_title("Quality against cycles")
    write_figure(figure, path)


def plot_survival(words: Sequence[str], layers: Sequence[str], path: str | Path, method: str) -> None:
    """Heat map of what is left of each token of one text where each layer begins, written on the tokens themselves.

    Parameters
    ----------
    words : the tokens of the text.
    layers : one text a layer with one letter a token: A it has a slot of its own, S it shares one, . it is gone.
    path : of the PNG or PDF. Of a text longer than `MAX_WORDS` the first `MAX_WORDS` tokens are shown, and the title says so.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    shown = min(len(words), MAX_WORDS)
    figure, (axes,) = new_figure(max(4.0, 0.19 * shown + 1.2), 0.24 * len(layers) + 1.8)
    letters = list(SURVIVAL)
    cells = [[letters.index(letter) for letter in row[:shown]] for row in layers]
    colours = [colour for colour, _ in SURVIVAL.values()]
    axes.imshow(
        cells, cmap=ListedColormap(colours), vmin=0, vmax=len(letters) - 1, aspect="auto", interpolation="nearest"
    )
    axes.set_xticks(range(shown), [_printable(word) for word in words[:shown]], rotation=90, fontsize=7)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in range(len(layers))])
    axes.set_ylabel("layer")
    axes.grid(visible=False)
    axes.set_xticks([column - 0.5 for column in range(1, shown)], minor=True)
    axes.set_yticks([row - 0.5 for row in range(1, len(layers))], minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    part = f" (first {shown} of {len(words)} tokens)" if shown < len(words) else ""
    axes.set_title(f"{method}: what enters each layer{part}")
    axes.legend(
        handles=[Patch(facecolor=colour, label=meaning) for colour, meaning in SURVIVAL.values()],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8,
    )
    write_figure(figure, path)


def plot_energy(energy_pj: Mapping[str, Mapping[str, float]], path: str | Path, machine: str) -> None:
    """Stacked bars of the energy by component, one bar a method.

    Parameters
    ----------
    energy_pj : by method, then by component, in picojoules.
    path : of the PNG or PDF.
    """
    components = sorted({component for parts in energy_pj.values() for component in parts})
    figure, (axes,) = new_figure(6.4, 0.42 * len(energy_pj) + 1.9)
    names = list(energy_pj)
    left = [0.0] * len(names)
    for index, component in enumerate(components):
        microjoules = [energy_pj[name].get(component, 0.0) / 1e6 for name in names]
        if not any(microjoules):
            continue
        axes.barh(
            names,
            microjoules,
            left=left,
            label=component.replace("_", " "),
            color=PALETTE[index % len(PALETTE)],
            hatch=HATCHES[(index // len(PALETTE)) % len(HATCHES)],
            edgecolor="white",
            linewidth=0.5,
        )
        left = [start + width for start, width in zip(left, microjoules, strict=True)]
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"energy on {machine} (µJ)")
    axes.set_title("Energy by component")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    write_figure(figure, path)


def plot_front(
    x: Sequence[float],
    y: Sequence[float],
    front: Sequence[int],
    path: str | Path,
    labels: tuple[str, str],
    title: str,
) -> None:
    """Scatter of the points of a sweep, those of its front marked.

    Parameters
    ----------
    x, y : of every point.
    front : places of the points that no other beats in all of the sweep's objectives, which may be more than these two.
    path : of the PNG or PDF.
    labels : of the two axes, with units.
    """
    figure, (axes,) = new_figure(6.4, 4.2)
    best = set(front)
    others = [place for place in range(len(x)) if place not in best]
    looks = ((others, MARKERS[0], PALETTE[4], "designs"), (sorted(best), MARKERS[3], PALETTE[5], "on the front"))
    for places, marker, colour, label in looks:
        axes.plot(
            [x[place] for place in places], [y[place] for place in places], marker, color=colour, markersize=6,
            markeredgecolor="#333333", markeredgewidth=0.5, linestyle="none", label=f"{label} ({len(places)})",
        )  # fmt: skip
    axes.margins(0.08)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title)
    write_figure(figure, path)


def new_figure(width_inches: float, height_inches: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure in the house's style with `rows` x `columns` panels, row by row."""
    # A figure with its own canvas instead of pyplot: no display, no global list of open figures.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_inches, height_inches), layout="tight")
        FigureCanvasAgg(figure)
        return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write `figure` as PNG, or as PDF where `path` ends so: equal plots are equal bytes.

    Raises
    ------
    InputError
        the file cannot be written.
    """
    import matplotlib

    form = "pdf" if Path(path).suffix == ".pdf" else "png"
    # Without the version of matplotlib or the hour in the file, equal plots are equal bytes.
    unsaid = dict.fromkeys(("Creator", "Producer", "CreationDate") if form == "pdf" else ("Software",))
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format=form, bbox_inches="tight", metadata=unsaid)
    with written_whole(path, "wb") as stream:
        stream.write(drawn.getvalue())


def _printable(word: str) -> str:
    """`word` as matplotlib can draw it: no mathematics, and a box for what the font does not hold."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(STYLE["font.family"]))
    drawable = "".join(character if font.get_char_index(ord(character)) else "\u25a1" for character in word)
    return drawable.replace("$", r"\$")
