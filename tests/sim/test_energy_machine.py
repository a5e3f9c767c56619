"""Energy and area of machines: laws of scaling, and the published machine beside its published figures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import machines
from topsieve_sim.arch import AcceleratorConfig, load_config, preset_names
from topsieve_sim.energy import (
    ACTIONS,
    Action,
    Component,
    action_energies_pj,
    area_um2,
    energy_pj,
    memory_bits,
    total_pj,
)
from topsieve_sim.energy.components import Key
from topsieve_sim.errors import InputError

SPATTEN = load_config("spatten")
KEYS = tuple(action_energies_pj(SPATTEN))


@given(counts=st.dictionaries(st.sampled_from(KEYS), st.integers(0, 10**15)))
def test_components_sum_to_the_total(counts: dict[Key, int]) -> None:
    energies = action_energies_pj(SPATTEN)
    energy = energy_pj(counts, energies)
    by_component = math.fsum(math.fsum(actions.values()) for actions in energy.values())
    by_action = math.fsum(count * energies[key] for key, count in counts.items())
    assert math.isclose(by_component, total_pj(energy), rel_tol=1e-9)
    assert math.isclose(by_action, total_pj(energy), rel_tol=1e-9)


@settings(max_examples=30, deadline=None)
@given(config=machines())
def test_every_machine_has_positive_energies_and_areas(config: AcceleratorConfig) -> None:
    assert min(action_energies_pj(config).values()) > 0
    area = area_um2(config)
    assert set(area) == set(Component) - {Component.DRAM}
    assert min(area.values()) > 0


@pytest.mark.parametrize("preset", preset_names())
def test_more_of_anything_is_never_smaller(preset: str) -> None:
    config = load_config(preset)
    total = math.fsum(area_um2(config).values())
    for change in (
        {"dot_product": config.dot_product.model_copy(update={"multipliers": 2 * config.dot_product.multipliers})},
        {"weighted_sum": config.weighted_sum.model_copy(update={"multipliers": 2 * config.weighted_sum.multipliers})},
        {"topk": config.topk.model_copy(update={"parallelism": 2 * config.topk.parallelism})},
        {"capacity": 2 * config.capacity},
        {"memory": config.memory.model_copy(update={"channels": 2 * config.memory.channels})},
    ):
        assert math.fsum(area_um2(config.model_copy(update=change)).values()) > total


def test_the_published_buffers() -> None:
    """196,608 bytes each: two buffers of 1024 x 64 x 12 bits (specification `accelerator`, section 2.2)."""
    bits = memory_bits(SPATTEN)
    assert bits[Component.KEY_BUFFER] == bits[Component.VALUE_BUFFER] == 8 * 196_608
    single = SPATTEN.model_copy(update={"double_buffer": False})
    assert memory_bits(single)[Component.KEY_BUFFER] == 4 * 196_608


@pytest.mark.parametrize("technology", ["40nm_cells", "45nm", "28nm", "7nm"])
@pytest.mark.parametrize(
    ("parts", "published_mm2"),
    [
        ((Component.DOT_PRODUCT, Component.KEY_BUFFER), 7.12),
        ((Component.WEIGHTED_SUM, Component.VALUE_BUFFER), 7.22),
        ((Component.SOFTMAX,), 0.79),
        ((Component.FETCHER,), 2.65),
        ((Component.VALUE_TOPK, Component.CASCADE_TOPK), 0.50),
    ],
)
def test_cells_and_macros_stay_below_every_published_module(
    technology: str, parts: tuple[Component, ...], published_mm2: float
) -> None:
    """SpAtten, Fig. 13, holds wires, clock and wide ports; the model holds cells and macros and is fitted to nothing."""
    area = area_um2(load_config("spatten", [f"technology={technology}"]))
    assert 0 < math.fsum(area[part] for part in parts) / 1e6 < published_mm2


def test_leakage_follows_time_not_cycles() -> None:
    fast, slow = (load_config("spatten", [f"clock_mhz={clock}"]) for clock in (1000, 500))
    key = (Component.KEY_BUFFER, Action.LEAK_CYCLE)
    assert action_energies_pj(slow)[key] == pytest.approx(2 * action_energies_pj(fast)[key])


def test_a_component_has_exactly_its_actions() -> None:
    assert set(KEYS) == {(component, action) for component, actions in ACTIONS.items() for action in actions}


def test_an_unknown_technology_of_a_machine_is_refused() -> None:
    config = load_config("spatten", ["technology=3nm"])
    for function in (action_energies_pj, area_um2):
        with pytest.raises(InputError, match="40nm_cells, 45nm"):
            function(config)
