"""Short heads share the operand buffers: fast times equal the clock-by-clock machine, and more heads never wait longer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import groups, machines, patterns, with_scores
from sim.test_timing_attention import assert_equal_to_stepped
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.arch.config import SuccessorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.timing.attention import AttentionGroup, attention_times
from topsieve_sim.timing.attention_group import operand_banks


def with_heads(config: AcceleratorConfig, heads: int) -> AcceleratorConfig:
    return config.model_copy(update={"successor": SuccessorConfig(buffered_heads=heads)})


@settings(max_examples=50, deadline=None)
@given(
    data=st.data(),
    config=machines(),
    heads=st.integers(1, 8),
    memory=patterns(),
    output=patterns(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fast_times_equal_the_stepped_machine(
    data: st.DataObject, config: AcceleratorConfig, heads: int, memory: Any, output: Any, seed: int
) -> None:
    config = with_heads(config, heads)
    group, scores = with_scores(config, data.draw(groups(config)), seed)
    assert_equal_to_stepped(config, group, scores, memory, output)


def test_as_many_heads_as_fit_and_no_fewer_than_banks() -> None:
    config = with_heads(load_config("spatten"), 8)

    def banks(keys: int, machine: AcceleratorConfig = config) -> int:
        return operand_banks(machine, keys)

    assert [banks(keys) for keys in (1024, 700, 682, 512, 300, 256, 20)] == [2, 2, 3, 4, 6, 8, 8]
    assert banks(20, with_heads(config, 0)) == 2


def test_heads_in_flight_hide_the_memory() -> None:
    """Twelve short heads of one query wait for memory on the published machine, and hardly here."""
    group = AttentionGroup(heads=12, queries=1, keys=204, kept=40, head_dim=64, select_cycles=50)
    published, shared = (
        attention_times(with_heads(load_config("spatten"), heads), [group]).total_cycles for heads in (0, 12)
    )
    products = 12 * -(-204 // 8)
    assert products < shared < 0.8 * published


def test_the_digest_of_a_machine_without_features_does_not_know_them() -> None:
    config = load_config("spatten")
    assert config.digest == with_heads(config, 0).digest != with_heads(config, 4).digest
    assert with_heads(config, 4).successor.features == ("buffered_heads",)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (["successor.buffered_heads=65"], "buffered_heads"),
        (["successor.termination_threshold=1"], "termination_threshold"),
        (["successor.tile_keys=12"], "tile_keys"),
        (["successor.partial_rows=1"], "partial_rows"),
        (["memory.model=axi", "memory.channels=1", "successor.evict=true"], "successor.evict"),
    ],
)
def test_values_that_no_machine_has_are_refused(change: list[str], field: str) -> None:
    with pytest.raises(InputError, match=field):
        load_config("spatten", change)
