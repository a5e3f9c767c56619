"""Technology tables: complete, sourced, scaled as they say; unknown names are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from topsieve_sim.energy import TechnologyTable, hbm_energy_pj, load_technology, technology_names
from topsieve_sim.energy.tables import REQUIRED
from topsieve_sim.errors import InputError


def test_the_shipped_technologies() -> None:
    assert technology_names() == ("40nm", "45nm")


@pytest.mark.parametrize("name", ["40nm", "45nm"])
def test_every_row_has_value_unit_node_and_source(name: str) -> None:
    table = load_technology(name)
    assert table.technology == name
    held = {(row.primitive, row.action) for row in table.rows}
    assert held == {(primitive, action) for primitive, actions in REQUIRED.items() for action in actions}
    for row in table.rows:
        assert row.unit == ("um2" if row.action == "area" else "pJ/ns" if row.action == "leak" else "pJ")
        assert row.primitive == "dram" or row.node_nm in (28, 40, 45)
        assert "section 7" in row.source or row.status == "derived"


def test_an_unknown_technology_lists_the_tables() -> None:
    with pytest.raises(InputError, match=r"technology: unknown technology \(got '7nm'\); allowed: 40nm, 45nm"):
        load_technology("7nm")


def test_an_incomplete_table_is_refused() -> None:
    table = load_technology("40nm")
    with pytest.raises(ValidationError, match="dram"):
        TechnologyTable(technology="x", rows=tuple(row for row in table.rows if row.primitive != "dram"))


@given(a=st.integers(1, 64), b=st.integers(1, 64))
def test_multipliers_scale_with_the_product_of_the_widths_and_adders_with_the_width(a: int, b: int) -> None:
    """Horowitz: an 8-bit multiply is 0.2 pJ, a 32-bit add 0.1 pJ."""
    table = load_technology("45nm")
    assert math.isclose(table.value("multiplier", "multiply", a, b), 0.2 * a * b / 64)
    assert math.isclose(table.value("adder", "add", a), 0.1 * a / 32)


def test_the_twelve_bit_multiply_of_the_specification() -> None:
    """About 0.5 pJ between 0.2 (8 bits) and 1.0 (16 bits), by the square of the width: specification, section 7."""
    assert load_technology("45nm").value("multiplier", "multiply", 12, 12) == pytest.approx(0.45)
    assert 0.2 < load_technology("45nm").value("multiplier", "multiply", 12, 12) < 1.0


def test_average_and_split_memory_energy_meet_at_a_quarter_row_an_activation() -> None:
    """3.92 pJ a bit on average is 3.48 pJ and an activation every 909 / 0.44 = 2066 bits of an 8192-bit row."""
    bits = 1_000_000
    activations = round(bits / (909 / (3.92 - 3.48)))
    assert hbm_energy_pj(bits, activations) == pytest.approx(3.92 * bits, rel=1e-3)
    assert hbm_energy_pj(bits, 0) == pytest.approx(3.48 * bits)
