"""Random small machines, attention groups, arrivals and stalls."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, load_config

TINY = load_config("tiny")


@st.composite
def machines(draw: Any) -> AcceleratorConfig:
    """Small machines around `tiny`: lanes, multipliers, buffering, capacity and memory vary."""
    lanes = draw(st.sampled_from([1, 2, 4, 8]))
    return AcceleratorConfig.model_validate(
        TINY.model_dump()
        | {
            "capacity": draw(st.sampled_from([8, 16, 32])),
            "double_buffer": draw(st.booleans()),
            "dot_product": {"multipliers": draw(st.sampled_from([4, 8, 16, 64])), "lane_split": 4},
            "weighted_sum": {"multipliers": draw(st.sampled_from([4, 8, 32])), "lane_split": 4},
            "softmax": {"lanes": lanes},
            "topk": {
                "selector": draw(st.sampled_from(["quick", "radix", "bitonic"])),
                "parallelism": draw(st.sampled_from([2, 4, 8])),
            },
            "memory": {
                "model": "ideal",
                "channels": draw(st.sampled_from([1, 2])),
                "beat_bytes": draw(st.sampled_from([1, 3, 4, 16])),
                "latency_cycles": draw(st.integers(1, 12)),
            },
        }
    )


@st.composite
def patterns(draw: Any, cycles: int = 400) -> NDArray[np.bool_]:
    """A ready pattern: mostly ready, mostly stalled, or always ready."""
    share = draw(st.sampled_from([1.0, 0.8, 0.4, 0.1]))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).random(draw(st.integers(0, cycles))) < share


@st.composite
def arrivals(draw: Any, beats: int) -> NDArray[np.int64]:
    """Non-decreasing arrival cycles of `beats` beats: bursts and gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.2, 0.8]))
    gaps = rng.integers(0, draw(st.sampled_from([2, 8, 40])), beats) * (rng.random(beats) < share)
    return np.cumsum(gaps).astype(np.int64)
