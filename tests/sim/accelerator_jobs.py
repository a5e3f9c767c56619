"""Random jobs of the accelerator, and what they must do, from their operands alone."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine.job import Job, LayerJob, TensorOrder, build_job
from topsieve_sim.golden.accelerator import AcceleratorRun, run
from topsieve_sim.golden.attention import machine_attention, quantise_operands
from topsieve_sim.golden.descriptor import Flag

START = Flag.RESET_TOKENS | Flag.RESET_HEADS | Flag.CLEAR_IMPORTANCE
_DRAWN = (
    Flag.CAUSAL, Flag.LIVE_TOKENS, Flag.LIVE_QUERIES, Flag.ACCUMULATE_TOKENS, Flag.ACCUMULATE_HEADS, Flag.PRUNE_TOKENS,
    Flag.REPORT, Flag.INTERRUPT,
)  # fmt: skip


def draw_layers(config: AcceleratorConfig, seed: int, layers: int = 3) -> list[LayerJob]:
    """Layers of one sequence; the first one resets."""
    rng = np.random.default_rng(seed)
    kv_heads = int(rng.integers(1, config.importance.heads + 1))
    group = int(rng.integers(1, config.importance.heads // kv_heads + 1))
    heads, tokens = kv_heads * group, int(rng.integers(1, config.capacity + 1))
    head_dim = int(rng.integers(1, config.max_head_dim + 1))
    decodes = bool(rng.random() < 0.4)
    queries = 1 if decodes else tokens
    result = []
    for number in range(int(rng.integers(1, layers + 1))):
        flags = START if number == 0 else Flag(0)
        for flag in _DRAWN:
            flags |= flag if rng.random() < 0.5 else Flag(0)
        if decodes:
            flags &= ~Flag.LIVE_QUERIES
        if config.formats.key_lsb_bits and rng.random() < 0.7:
            flags |= Flag.PROGRESSIVE
        if group == 1:
            flags |= Flag.LIVE_HEADS if rng.random() < 0.7 else Flag(0)
            flags |= Flag.PRUNE_HEADS if rng.random() < 0.4 else Flag(0)
        shapes = (heads, queries, head_dim), (kv_heads, tokens, head_dim)
        operands = quantise_operands(
            rng.normal(size=shapes[0]) * rng.choice([0.3, 3.0]),
            rng.normal(size=shapes[1]),
            rng.normal(size=shapes[1]),
            config.formats,
        )
        result.append(
            LayerJob(
                operands=operands,
                flags=flags,
                kept_values=int(rng.integers(0, tokens + 2)) if rng.random() < 0.5 else 0,
                keep_tokens=int(rng.integers(1, tokens + 2)),
                keep_heads=int(rng.integers(1, heads + 2)),
            )
        )
    return result


def draw_job(
    config: AcceleratorConfig, seed: int, *, threshold: float = 0.3, layers: int = 3
) -> tuple[Job, list[LayerJob]]:
    """A job in either order of its tensors, and the layers that it was made from."""
    drawn = draw_layers(config, seed, layers)
    return build_job(config, drawn, threshold=threshold, order=list(TensorOrder)[seed % 2]), drawn


def run_job(job: Job) -> AcceleratorRun:
    """From a reset machine."""
    return run(job.image, job.descriptor_address, job.config, job.threshold)


@dataclasses.dataclass
class Expected:
    """Of one layer: outputs [heads, rows, head_dim] with zeros where nothing is written; the lists and importance after it."""

    outputs: NDArray[np.int64]
    tokens: list[int]
    heads: list[int]
    token_importance: list[int]
    head_importance: dict[int, int]


def expected_layers(job: Job, layers: list[LayerJob]) -> list[Expected]:
    """The same from the operands, with lists and dictionaries for the machine's state."""
    formats, result = job.config.formats, []
    tokens: list[int] = []
    heads: list[int] = []
    importance: dict[int, int] = {}
    loud = dict.fromkeys(range(job.config.importance.heads), 0)
    for layer in layers:
        ops, flags = layer.operands, layer.flags
        if Flag.CLEAR_IMPORTANCE in flags:
            importance, loud = {}, dict.fromkeys(loud, 0)
        if Flag.RESET_TOKENS in flags:
            tokens = list(range(ops.key.shape[1]))
        if Flag.RESET_HEADS in flags:
            heads = list(range(ops.query.shape[0]))
        used = heads if Flag.LIVE_HEADS in flags else list(range(ops.query.shape[0]))
        group = ops.query.shape[0] // ops.key.shape[0]
        kv = sorted({head // group for head in used})
        columns = tokens if Flag.LIVE_TOKENS in flags else list(range(ops.key.shape[1]))
        rows = tokens if Flag.LIVE_QUERIES in flags else list(range(ops.query.shape[1]))
        multiplier, shift = (np.broadcast_to(part, ops.query.shape[0])[used] for part in ops.factor)
        part = dataclasses.replace(
            ops,
            query=ops.query[used][:, rows],
            key=ops.key[kv][:, columns],
            value=ops.value[kv][:, columns],
            factor=type(ops.factor)(multiplier, shift),
        )
        valid = None
        if Flag.CAUSAL in flags:
            last = [max(len(columns) - len(rows) + row, 0) for row in range(len(rows))]
            valid = np.array([[column <= end for column in range(len(columns))] for end in last])
        threshold = job.threshold if Flag.PROGRESSIVE in flags else 0
        if Flag.PROGRESSIVE in flags and threshold == 0:
            part = dataclasses.replace(part, key=part.key >> formats.key_lsb_bits << formats.key_lsb_bits)
        found = machine_attention(part, job.config, threshold, layer.kept_values or None, valid)
        outputs = np.zeros_like(ops.query)
        for slot, head in enumerate(used):
            outputs[head, rows] = found.output[slot]
        if Flag.ACCUMULATE_TOKENS in flags:
            for place in range(len(columns)):
                total = importance.get(place, 0) + int(found.probability[:, :, place].sum())
                importance[place] = min(total, (1 << formats.token_importance_bits) - 1)
        if Flag.ACCUMULATE_HEADS in flags:
            for slot, head in enumerate(used):
                total = loud[head] + int(np.abs(found.output[slot]).sum())
                loud[head] = min(total, (1 << formats.head_importance_bits) - 1)
        if Flag.PRUNE_TOKENS in flags and layer.keep_tokens < len(tokens):
            ranked = sorted(range(len(tokens)), key=lambda place: (-importance.get(place, 0), place))
            stay = sorted(ranked[: layer.keep_tokens])
            # Words are read whole, and what lies behind the live tokens in the last one is lost.
            lanes = job.config.softmax.lanes
            lost = -(-len(tokens) // lanes) * lanes
            beyond = {place: value for place, value in importance.items() if place >= lost}
            importance = beyond | {new: importance.get(old, 0) for new, old in enumerate(stay)}
            tokens = [tokens[place] for place in stay]
        if Flag.PRUNE_HEADS in flags and layer.keep_heads < len(heads):
            heads = sorted(sorted(heads, key=lambda head: (-loud[head], head))[: layer.keep_heads])
        scores = [importance.get(place, 0) for place in range(len(tokens))]
        result.append(Expected(outputs, list(tokens), list(heads), scores, dict(loud)))
    return result
