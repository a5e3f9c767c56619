"""Long rows keep both arrays busy: what the counters say, and what the multipliers therefore do."""

from __future__ import annotations

import numpy as np
import pytest

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.timing.accounting import BUSY, DOT_PRODUCT, WEIGHTED_SUM
from topsieve_sim.timing.attention import AttentionGroup, attention_times

IDEAL = "memory.model=ideal"
MACHINES = [load_config(name, [IDEAL]) for name in ("spatten", "spatten-eighth", "ecp5")]
# The specified floor: an array does nothing in at most one cycle in twenty.
FLOOR = 0.95


def busy_shares(config: AcceleratorConfig, group: AttentionGroup) -> tuple[float, float]:
    """Busy cycles of the dot-product and the weighted-sum array over all cycles."""
    times = attention_times(config, [group])
    dot_product, weighted_sum = (int(times.unit_cycles[0, unit, BUSY]) for unit in (DOT_PRODUCT, WEIGHTED_SUM))
    cycles = int(times.cycles[0])
    return dot_product / cycles, weighted_sum / cycles


@pytest.mark.parametrize("config", MACHINES, ids=lambda config: config.name)
@pytest.mark.parametrize(("heads", "share_of_queries"), [(1, 1), (12, 4)])
def test_arrays_are_busy_on_rows_of_full_capacity(config: AcceleratorConfig, heads: int, share_of_queries: int) -> None:
    keys, queries = config.capacity, config.capacity // share_of_queries
    group = AttentionGroup(heads=heads, queries=queries, keys=keys, kept=keys, head_dim=config.max_head_dim)
    shares = busy_shares(config, group)
    assert min(shares) >= FLOOR
    # Full beats of the longest heads leave no multiplier idle in a busy cycle, so the counters are utilisation.
    products = heads * queries * keys * config.max_head_dim
    cycles = int(attention_times(config, [group]).cycles[0])
    for share, array in zip(shares, (config.dot_product, config.weighted_sum), strict=True):
        assert products / (array.multipliers * cycles) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("config", MACHINES, ids=lambda config: config.name)
def test_rows_computed_twice_keep_the_dot_product_array_busy(config: AcceleratorConfig) -> None:
    rows = config.capacity
    # The published share of rows that need LSBs (SpAtten, section III-D).
    flags = np.random.default_rng(0).random(rows) < 0.059
    group = AttentionGroup(
        heads=1, queries=rows, keys=rows, kept=rows, head_dim=config.max_head_dim, lsb_flags=flags, progressive=True
    )
    dot_product, weighted_sum = busy_shares(config, group)
    assert dot_product >= FLOOR
    assert weighted_sum == pytest.approx(dot_product * rows / (rows + flags.sum()), rel=1e-12)


def test_the_floor_can_be_missed() -> None:
    """Decoding reads every key for one query: the memory is the limit, and the counters say so."""
    spatten = MACHINES[0]
    keys = spatten.capacity
    group = AttentionGroup(heads=12, queries=1, keys=keys, kept=keys, head_dim=spatten.max_head_dim)
    assert max(busy_shares(spatten, group)) < 0.5
