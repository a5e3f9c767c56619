"""The chart of selectors: what it reads, what it draws."""

import pytest

from topsieve.selector_chart import draw, mean_cycles, measured_luts
from topsieve_sim.errors import InputError
from topsieve_sim.golden.topk_select import radix_cycles

PAGE = "\n".join(
    f"| topk | ecp5, topk.selector={name}, topk.parallelism=8 | Lattice ECP5 | {luts} | 1 | 0 | 0 | 1 | x |"
    for name, luts in (("quick", 7000), ("radix", 5000), ("bitonic", 8000))
)


def test_areas_are_the_pages(tmp_path):
    page = tmp_path / "resources.md"
    page.write_text(PAGE)
    assert measured_luts(page) == {"quick": 7000, "radix": 5000, "bitonic": 8000}


def test_a_page_without_a_selector_is_refused(tmp_path):
    page = tmp_path / "resources.md"
    page.write_text(PAGE.replace("quick", "quickest"))
    with pytest.raises(InputError, match="no ECP5 row"):
        measured_luts(page)
    with pytest.raises(InputError, match="cannot read"):
        measured_luts(tmp_path / "absent.md")


def test_radix_takes_its_formula_and_quick_select_less_for_small_and_large_k():
    assert mean_cycles("radix", 512, 100, 16) == radix_cycles(512, 16, 12, 4)
    assert mean_cycles("quick", 1024, 20, 16, draws=40) < mean_cycles("quick", 1024, 512, 16, draws=40)


def test_equal_charts_are_equal_bytes(tmp_path):
    page = tmp_path / "resources.md"
    page.write_text(PAGE)
    draw(tmp_path / "first.png", page)
    draw(tmp_path / "second.png", page)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert (tmp_path / "first.png").stat().st_size > 10_000
