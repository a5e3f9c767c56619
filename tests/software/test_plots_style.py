"""The plots: real PNG files, equal bytes for equal numbers, different bytes for different ones, nothing half-written."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings

import pytest

from topsieve import plots
from topsieve_sim.errors import InputError

WORDS = ["the", "$cost", "of", "$x^$", "##ing", "日本", "_"]
DRAWINGS = {
    "fidelity": lambda path, scale: plots.plot_fidelity_against_cycles(
        {"dense": 100 * scale, "spatten": 60}, {"dense": 1.0, "spatten": 0.9}, path, "spatten", "cosine"
    ),
    "survival": lambda path, scale: plots.plot_survival(
        WORDS, ["A" * 7, "AAS" + ".SAA"[scale:] + "." * scale], path, "tome"
    ),
    "energy": lambda path, scale: plots.plot_energy(
        {"dense": {f"part_{index}": 1e6 * index * scale for index in range(12)}, "evit": {"part_1": 3e5}}, path, "tiny"
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_equal_numbers_are_equal_bytes_and_others_are_not(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a character that the font lacks must not reach matplotlib
        for file, scale in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
            DRAWINGS[name](tmp_path / file, scale)
    first, again, other = ((tmp_path / file).read_bytes() for file in ("a.png", "b.png", "c.png"))
    assert first == again
    assert first != other
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", first[16:24])
    assert 200 < width < 2000
    assert 100 < height < 2000
    assert b"matplotlib" not in first


def test_long_text_is_cut_and_the_figure_stays_small(tmp_path):
    words = [f"w{index}" for index in range(500)]
    plots.plot_survival(words, ["A" * 500] * 12, tmp_path / "long.png", "dense")
    width, _ = struct.unpack(">II", (tmp_path / "long.png").read_bytes()[16:24])
    assert width < 3000


def test_palette_separates_for_every_reader():
    """Eight distinct colours whose luminance also differs, so that a grey print still separates neighbours."""

    def luminance(colour: str) -> float:
        red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert len(set(plots.PALETTE)) == len(plots.PALETTE) == len(plots.MARKERS) == len(plots.HATCHES)
    for left, right in zip(plots.PALETTE, plots.PALETTE[1:], strict=False):
        assert abs(luminance(left) - luminance(right)) > 0.05


def test_a_missing_folder_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        DRAWINGS["energy"](tmp_path / "absent" / "energy.png", 1)
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_never_loaded(tmp_path):
    """pyplot looks for a display and keeps every figure it made."""
    code = (
        "import sys; from topsieve import plots; assert 'matplotlib' not in sys.modules; "
        f"plots.plot_energy({{'dense': {{'dram': 1.0}}}}, {str(tmp_path / 'energy.png')!r}, 'tiny'); "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
