"""Technology tables: complete, sourced, scaled as they say; unknown names are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from topsieve_sim.arch import load_config
from topsieve_sim.energy import (
    Action,
    Component,
    TechnologyTable,
    action_energies_pj,
    area_um2,
    hbm_energy_pj,
    load_technology,
    technology_names,
)
from topsieve_sim.energy.calibration import fitted_factors
from topsieve_sim.energy.tables import REQUIRED
from topsieve_sim.errors import InputError

NAMES = ("28nm", "40nm", "40nm_cells", "45nm", "7nm")


def test_the_shipped_technologies() -> None:
    assert technology_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_value_unit_node_and_source(name: str) -> None:
    table = load_technology(name)
    assert table.technology == name
    held = [(row.primitive, row.action) for row in table.all_rows()]
    assert held == [(primitive, action) for primitive, actions in REQUIRED.items() for action in actions]
    for row in table.all_rows():
        assert row.unit == ("um2" if row.action == "area" else "pJ/ns" if row.action == "leak" else "pJ")
        assert row.primitive == "dram" or row.node_nm in (7, 28, 40, 45)
        cited = "section 7" in row.source or "ISCA 2021" in row.source
        assert cited or row.status == "derived" or "Stillmaker and B. Baas" in row.source


# Energy E(V) = a V^2 + b V + c at 0.9 V and area from 45 nm (Stillmaker and Baas, Integration 58, 2017).
ENERGY = {45: (1.103, -0.362, 0.2767), 32: (0.9559, -0.7823, 0.471), 20: (0.373, -0.1582, 0.04104)}
AREA = {45: 1.0, 32: 0.46, 20: 0.21, 7: 0.059}


def between(node: int, low: int, high: int, values: dict[int, float]) -> float:
    share = (node - low) / (high - low)
    return values[low] * (1 - share) + values[high] * share


def test_scaled_rows_follow_the_published_rule() -> None:
    energy = {node: (a * 0.9 + b) * 0.9 + c for node, (a, b, c) in ENERGY.items()}
    energy[28], energy[40] = between(28, 20, 32, energy), between(40, 32, 45, energy)
    area = {**AREA, 28: between(28, 20, 32, AREA), 40: between(40, 32, 45, AREA)}
    bit_7_from_28 = between(28, 20, 32, {20: 0.28, 32: 0.13})
    cells, horowitz, small, smallest = (load_technology(name) for name in ("40nm_cells", "45nm", "28nm", "7nm"))
    factors = {("28nm", "energy", 45): energy[28] / energy[45], ("28nm", "energy", 40): energy[28] / energy[40]}
    factors |= {("28nm", "area", node): area[28] / area[node] for node in (40, 45)}
    factors |= {("7nm", "area", node): area[7] / area[node] for node in (40, 45)}
    factors["7nm", "energy", 40] = 0.03 / 0.1
    checked = 0
    for table in (small, smallest):
        for row in table.rows:
            if row.status == "scaled" and row.primitive != "sram":
                origin = cells if row.primitive == "register" else horowitz
                kind = "area" if row.action == "area" else "energy"
                factor = factors[table.technology, kind, 40 if row.primitive == "register" else 45]
                expected = origin.row(row.primitive, row.action).value * factor
                assert row.value == pytest.approx(expected, rel=2e-3)  # the factors are stated to four digits
                checked += 1
    assert checked == 10
    assert smallest.value("sram", "area", 1) == pytest.approx(small.value("sram", "area", 1) * bit_7_from_28, rel=1e-4)
    # A macro cannot be smaller than its bit cells.
    assert smallest.value("sram", "area", 1) > 0.027


def test_smaller_nodes_are_smaller_and_cost_less_logic_energy() -> None:
    areas = [math.fsum(area_um2(load_config("spatten", [f"technology={name}"])).values()) for name in NAMES]
    by_name = dict(zip(NAMES, areas, strict=True))
    assert by_name["7nm"] < by_name["28nm"] < by_name["45nm"] < by_name["40nm"]
    multiply = [load_technology(name).value("multiplier", "multiply", 12, 12) for name in ("7nm", "28nm", "45nm")]
    assert multiply == sorted(multiply)


def test_the_factors_of_40nm_are_the_published_numbers_over_the_cells() -> None:
    """The file states the factors, `calibration` computes them from what is published."""
    entries = load_technology("40nm").calibration
    assert {entry.fitted_to: entry.factor for entry in entries} == pytest.approx(fitted_factors(), rel=1e-6)
    assert not any(load_technology(name).calibration for name in NAMES if name != "40nm")


def test_calibrated_areas_are_the_published_ones_and_nothing_else_moves() -> None:
    fitted, cells = (area_um2(load_config("spatten", [f"technology={name}"])) for name in ("40nm", "40nm_cells"))
    assert fitted[Component.DOT_PRODUCT] + fitted[Component.KEY_BUFFER] == pytest.approx(7.12e6, rel=1e-5)
    assert fitted[Component.FETCHER] == pytest.approx(2.65e6, rel=1e-5)
    for component in (Component.SOFTMAX, Component.VALUE_TOPK, Component.CASCADE_TOPK, Component.IMPORTANCE):
        assert fitted[component] == cells[component]
    before, after = (
        action_energies_pj(load_config("spatten", [f"technology={name}"])) for name in ("40nm_cells", "40nm")
    )
    moved = {key for key in before if before[key] != after[key]}
    named = {
        (component, action)
        for entry in load_technology("40nm").calibration
        for component in entry.components
        for action in entry.actions
    }
    assert {(component.value, action.value) for component, action in moved} == named - {("weighted_sum", "scale")}


def test_an_unknown_technology_lists_the_tables() -> None:
    with pytest.raises(InputError, match=r"technology: unknown technology \(got '3nm'\); allowed: 28nm, 40nm, .* file"):
        load_technology("3nm")


def test_an_incomplete_table_is_refused() -> None:
    rows = tuple(row for row in load_technology("40nm_cells").rows if row.primitive != "dram")
    with pytest.raises(ValidationError, match="dram"):
        TechnologyTable(technology="x", rows=rows)
    assert TechnologyTable(technology="x", base="40nm_cells", rows=rows).value("dram", "access", 1) == 3.92
    with pytest.raises(ValidationError, match="base must be one of"):
        TechnologyTable(technology="x", base="nowhere", rows=rows)
    with pytest.raises(ValidationError, match="two rows"):
        TechnologyTable(technology="x", base="40nm_cells", rows=(*rows, rows[0]))
    with pytest.raises(ValidationError, match="no table has"):
        TechnologyTable(technology="x", base="40nm_cells", rows=(rows[0].model_copy(update={"action": "divide"}),))


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
    energies = action_energies_pj(load_config("spatten"))
    assert energies[Component.DRAM, Action.READ_BIT] == 3.92
    bits = 1_000_000
    activations = round(bits / (909 / (3.92 - 3.48)))
    assert hbm_energy_pj(bits, activations, energies) == pytest.approx(3.92 * bits, rel=1e-3)
    assert hbm_energy_pj(bits, 0, energies) == pytest.approx(3.48 * bits)
    assert hbm_energy_pj(0, 2, energies) == pytest.approx(2 * 909)
