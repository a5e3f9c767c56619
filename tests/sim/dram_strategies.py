"""Random memories and request traces."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from topsieve_sim.dram import DramConfig, load_dram_config

DRAMSIM3_PRESETS = ("hbm2", "hbm2-pseudo-channel", "ddr4-3200", "ddr5-3200", "lpddr4-3200")
RAMULATOR_PRESETS = ("hbm2-shared-buffer", "ddr4-2400")


@st.composite
def memories(draw: Any, policy: str = "dramsim3") -> DramConfig:
    """A preset with small random queues and frequent refreshes, so that short traces reach every corner."""
    preset = draw(st.sampled_from(DRAMSIM3_PRESETS if policy == "dramsim3" else RAMULATOR_PRESETS))
    stock = load_dram_config(preset)
    shortest = stock.organization.ranks * stock.timing.shortest_refresh_interval
    overrides = [
        f"controller.policy={policy}",
        f"controller.read_queue={draw(st.integers(1, 16))}",
        f"controller.write_buffer={draw(st.integers(1, 16))}",
        f"timing.tREFI={shortest + draw(st.integers(0, 300))}",
    ]
    if policy == "dramsim3":
        overrides += [
            f"controller.bank_queue={draw(st.integers(1, 8))}",
            f"controller.row_hit_cap={draw(st.integers(1, 4))}",
            f"controller.write_drain_threshold={draw(st.integers(0, 8))}",
            f"controller.page={draw(st.sampled_from(['open', 'closed']))}",
        ]
    if preset == "hbm2":
        overrides.append(f"controller.dual_command={draw(st.sampled_from(['true', 'false']))}")
    return load_dram_config(preset, overrides)


@st.composite
def request_traces(draw: Any, config: DramConfig, most: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Addresses, write flags, arrivals: from a handful of lines hit again and again to traffic over many rows."""
    count = draw(st.integers(1, most))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lines = draw(st.sampled_from([4, 64, 4096, 1 << 16]))
    stride = draw(st.sampled_from([1, 16]))
    addresses = random.integers(0, lines, count) * config.organization.access_bytes * stride
    is_write = random.random(count) < draw(st.sampled_from([0.0, 0.2, 0.5, 0.9]))
    last = draw(st.sampled_from([1, 4 * count, 40 * count]))
    return addresses, is_write, np.sort(random.integers(0, last, count))
