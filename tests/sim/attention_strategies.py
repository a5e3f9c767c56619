"""Random small machines, attention groups, arrivals and stalls."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.attention import flush_cycles
from topsieve_sim.golden.topk import SELECTOR_CODES, select_cycles
from topsieve_sim.timing import attention_kernel as kernel
from topsieve_sim.timing.attention import AttentionGroup, PortStalls
from topsieve_sim.timing.operand_layout import OperandLayout

TINY = load_config("tiny")

COLUMNS = {
    "row": kernel.ROW,
    "second_pass": kernel.SECOND_PASS,
    "pick": kernel.PICK,
    "first_product": kernel.FIRST_PRODUCT,
    "last_product": kernel.LAST_PRODUCT,
    "filled": kernel.FILLED,
    "first_probability": kernel.FIRST_PROBABILITY,
    "last_probability": kernel.LAST_PROBABILITY,
    "last_weighted": kernel.LAST_WEIGHTED,
    "left": kernel.LEFT,
}


@st.composite
def groups(draw: Any, config: AcceleratorConfig) -> AttentionGroup:
    heads = draw(st.integers(1, 6))
    queries = draw(st.sampled_from([1, 1, 1, 2, 5]))
    keys = draw(st.integers(1, config.capacity))
    kept = draw(st.sampled_from([keys, max(keys // 2, 1), 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = heads * queries
    return AttentionGroup(
        heads=heads,
        queries=queries,
        keys=keys,
        kept=kept,
        head_dim=draw(st.integers(1, 8)),
        lsb_flags=rng.random(rows) < (share := draw(st.sampled_from([0.0, 0.3, 1.0]))),
        row_keys=rng.integers(1, keys + 1, rows) if draw(st.booleans()) else None,
        progressive=share > 0 or draw(st.booleans()),
    )


def with_scores(config: AcceleratorConfig, group: AttentionGroup, seed: int) -> tuple[AttentionGroup, list[list[int]]]:
    """Scores for the top-k engine, and the group with the selection times that follow from them."""
    rng = np.random.default_rng(seed)
    row_keys = np.full(group.heads * group.queries, group.keys) if group.row_keys is None else group.row_keys
    top = rng.choice([2, 1 << config.formats.probability_bits])
    scores = [rng.integers(0, top, n) for n in row_keys]
    topk = config.topk
    code = SELECTOR_CODES[topk.selector]
    cycles = [
        select_cycles(
            row, group.kept, code, topk.parallelism, config.formats.probability_bits, topk.seed, topk.radix_bits
        )[0]
        for row in scores
    ]
    flush = flush_cycles(np.concatenate(scores), row_keys, group.kept, topk.parallelism)
    timed = dataclasses.replace(group, select_cycles=np.array(cycles), flush_cycles=flush)
    return timed, [row.tolist() for row in scores]


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


@st.composite
def fetched_machines(draw: Any) -> AcceleratorConfig:
    """Small machines whose operands come through fetchers of many shapes."""
    config = draw(machines())
    burst_words = draw(st.sampled_from([1, 2, 5, 16]))
    return AcceleratorConfig.model_validate(
        config.model_dump()
        | {
            "formats": config.formats.model_dump() | {"key_lsb_bits": draw(st.sampled_from([0, 2, 2, 3]))},
            "memory": {
                "model": "axi",
                "channels": draw(st.sampled_from([1, 2])),
                "beat_bytes": draw(st.sampled_from([1, 4, 16])),
                "latency_cycles": draw(st.integers(1, 12)),
                "axi": {
                    "burst_words": burst_words,
                    "outstanding": draw(st.integers(1, 4)),
                    "buffer_words": burst_words + draw(st.integers(0, 8)),
                    "merge_bytes": draw(st.sampled_from([0, 8, 40])),
                    "address_bits": draw(st.sampled_from([16, 32])),
                },
            },
        }
    )


@st.composite
def layouts(draw: Any, config: AcceleratorConfig, group: AttentionGroup) -> OperandLayout | None:
    """Anywhere in memory: tensors, distances, gathered tokens and survivors; or the packed layout."""
    if draw(st.booleans()):
        return None
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = group.heads * group.queries
    gathers = draw(st.booleans())
    tokens = np.sort(rng.choice(config.capacity, group.keys, replace=False)) if gathers else None
    chosen = np.sort(np.argsort(rng.random((rows, group.keys)), axis=1)[:, : group.kept], axis=1)
    return OperandLayout(
        heads=rng.integers(0, 60_000, (3, group.heads)),
        row_bytes=rng.integers(0, 40, 3),
        query=rng.integers(0, 60_000, rows),
        output=rng.integers(0, 60_000, rows),
        tokens=tokens,
        survivors=chosen if tokens is None else tokens[chosen],
    )


@st.composite
def port_stalls(draw: Any) -> PortStalls:
    """A memory that stalls addresses, delays bursts and spaces words."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    delay, gap = (
        (rng.integers(0, 30, 60), rng.integers(0, 4, 200)) if draw(st.booleans()) else (rng.integers(0, 1, 0),) * 2
    )
    return PortStalls(draw(patterns()), delay, gap)
