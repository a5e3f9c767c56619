"""Golden model of the accelerator: a list of descriptors on a memory image, to the bit.

Source: `docs/accelerator.md`. The arithmetic is that of the units' own golden models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES, FACTOR_BYTES, REPORT_RECORD_BYTES
from topsieve_sim.golden.attention import AttentionOperands, AttentionResult, attention
from topsieve_sim.golden.byte_memory import ByteMemory, packed, unpacked
from topsieve_sim.golden.descriptor import (
    Descriptor,
    Flag,
    LiveCounts,
    counts_after_reset,
    decode_descriptor,
    descriptor_problem,
    row_counts,
)
from topsieve_sim.golden.importance import add_head_importance, add_token_importance
from topsieve_sim.golden.numbers import SCORE_SHIFT_BITS, Integers, ScoreFactor, join_planes, msb_only
from topsieve_sim.golden.topk import top_k


class RunError(IntEnum):
    """`status.error`."""

    NONE = 0
    BAD_DESCRIPTOR = 1
    READ = 2
    WRITE = 3


@dataclass
class MachineState:
    """What a machine keeps from descriptor to descriptor and from job to job; by default as after a reset.

    tokens : int64 [live], the live list. alive : bool [heads], the live query heads.
    token_importance : int64 [capacity], by position in the live list; head_importance : int64 [heads].
    reset_heads : query heads that the last `reset_heads` made.
    """

    tokens: Integers
    alive: NDArray[np.bool_]
    token_importance: Integers
    head_importance: Integers
    reset_heads: int = 0

    @classmethod
    def after_reset(cls, config: AcceleratorConfig) -> MachineState:
        """Nothing is live, nothing is important."""
        heads = config.importance.heads
        return cls(
            np.zeros(0, np.int64),
            np.zeros(heads, np.bool_),
            np.zeros(config.capacity, np.int64),
            np.zeros(heads, np.int64),
        )

    def counts(self) -> LiveCounts:
        """What the check of a descriptor looks at."""
        return LiveCounts(self.tokens.size, int(self.alive.sum()), self.reset_heads)

    def copy(self) -> MachineState:
        """An independent copy."""
        return MachineState(
            self.tokens.copy(),
            self.alive.copy(),
            self.token_importance.copy(),
            self.head_importance.copy(),
            self.reset_heads,
        )


@dataclass
class LayerRun:
    """What one descriptor did; `topsieve_sim.timing.accelerator` makes cycles of it.

    heads : int64 [kv slots], the live key-value heads in the order of their slots. keys, queries : of the layer.
    tokens : int64, the live list during the attention.
    row_keys : int64 [rows], keys of each row in the order of row numbers: slot, member, query.
    result : of the attention, [slots x group, queries, ...].
    prune_tokens, prune_heads : the state before each pruning, None where there was none.
    state : after the layer.
    """

    address: int
    descriptor: Descriptor
    error: RunError = RunError.NONE
    problem: str | None = None
    heads: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    keys: int = 0
    queries: int = 0
    tokens: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    row_keys: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    result: AttentionResult | None = None
    prune_tokens: MachineState | None = None
    prune_heads: MachineState | None = None
    state: MachineState | None = None

    @property
    def query_heads(self) -> Integers:
        """The query head in memory of each slot, int64 [slots x group]."""
        group = self.descriptor.group
        return np.asarray((self.heads[:, None] * group + np.arange(group)).reshape(-1))

    @property
    def fetched_survivors(self) -> Integers | None:
        """Positions in the row of the values that are fetched, int64 [slots, kept], ascending; None: all of them."""
        if self.result is None or self.result.kept is None or self.descriptor.group * self.queries != 1:
            return None
        mask = self.result.kept[:, 0]
        return np.nonzero(mask)[1].reshape(mask.shape[0], -1)


@dataclass(frozen=True)
class AcceleratorRun:
    """A finished job: memory afterwards, what each descriptor did, the machine's state, `status.error`."""

    memory: bytes
    layers: tuple[LayerRun, ...]
    state: MachineState
    error: RunError


def run(
    memory: bytes | bytearray,
    descriptor_address: int,
    config: AcceleratorConfig,
    threshold: int,
    state: MachineState | None = None,
) -> AcceleratorRun:
    """Execute the descriptors from `descriptor_address` on.

    Parameters
    ----------
    memory : image from address 0 on; accesses beyond it are answered with DECERR.
    threshold : the register `progressive_threshold`, in probability steps.
    state : of the machine at the start; default: as after a reset.

    Raises
    ------
    InputError
        `config` is no machine with AXI4 ports.
    """
    if not config.memory.has_fetchers:
        raise InputError(
            "the accelerator needs AXI4 ports", field="memory.model", value=config.memory.model, allowed="axi"
        )
    bytes_memory = ByteMemory.of(memory, config.memory.bytes_per_cycle, config.memory.axi.address_bits)
    state = MachineState.after_reset(config) if state is None else state.copy()
    layers: list[LayerRun] = []
    address = descriptor_address & bytes_memory.address_mask
    while True:
        layer = _run_descriptor(bytes_memory, address, config, threshold, state)
        layers.append(layer)
        if layer.error or Flag.LAST in layer.descriptor.flags:
            return AcceleratorRun(bytes_memory.image.tobytes(), tuple(layers), state, layer.error)
        address = (address + DESCRIPTOR_BYTES) & bytes_memory.address_mask


def _run_descriptor(
    memory: ByteMemory, address: int, config: AcceleratorConfig, threshold: int, state: MachineState
) -> LayerRun:
    descriptor = decode_descriptor(memory.read(np.array(address), DESCRIPTOR_BYTES).tobytes())
    layer = LayerRun(address, descriptor)
    if memory.read_failed:
        layer.error = RunError.READ
        return layer
    layer.problem = descriptor_problem(descriptor, state.counts(), config)
    if layer.problem is not None:
        layer.error = RunError.BAD_DESCRIPTOR
        return layer
    _reset(descriptor, state)
    counts = row_counts(descriptor, counts_after_reset(descriptor, state.counts()))
    layer.keys, layer.queries = counts.keys, counts.queries
    layer.tokens = state.tokens
    alive = state.alive if Flag.LIVE_HEADS in descriptor.flags else np.ones_like(state.alive)
    layer.heads = np.flatnonzero(alive[: descriptor.kv_heads])
    result = _attend(memory, layer, config, threshold)
    _accumulate(layer, result, config, state)
    _write_outputs(memory, layer, result, config)
    _prune(layer, config, state)
    layer.state = state.copy()
    if Flag.REPORT in descriptor.flags:
        _report(memory, layer, result, state)
    if memory.read_failed or memory.write_failed:
        layer.error = RunError.READ if memory.read_failed else RunError.WRITE
    return layer


def _reset(descriptor: Descriptor, state: MachineState) -> None:
    if Flag.CLEAR_IMPORTANCE in descriptor.flags:
        state.token_importance[:] = 0
        state.head_importance[:] = 0
    if Flag.RESET_TOKENS in descriptor.flags:
        state.tokens = np.arange(descriptor.keys)
    if Flag.RESET_HEADS in descriptor.flags:
        state.reset_heads = descriptor.kv_heads * descriptor.group
        state.alive = np.arange(state.alive.size) < state.reset_heads


def _addresses(base: int, heads: Integers, rows: Integers, row_bytes: int, head_bytes: int) -> Integers:
    """Byte addresses of rows, int64 [heads, rows], before the address mask."""
    # 62 bits are more than any port has and leave room for the sums.
    start = (base & ((1 << 61) - 1)) + heads * head_bytes
    return np.asarray(start[:, None] + rows * row_bytes)


@dataclass
class _Plane:
    """Rows of one tensor: int64 [heads, rows] addresses; `bits` an element."""

    memory: ByteMemory
    addresses: Integers
    head_dim: int
    bits: int

    def elements(self, *, signed: bool = True) -> Integers:
        """int64 [heads, rows, head_dim]."""
        rows = self.memory.peek(self.addresses, (self.head_dim * self.bits + 7) // 8)
        return unpacked(rows, self.head_dim, self.bits, signed=signed)

    def fetch(self, heads: Any, rows: Any = slice(None)) -> None:
        """The access to some rows of some heads, as numpy's indices name them."""
        self.memory.touch(self.addresses[heads][..., rows], (self.head_dim * self.bits + 7) // 8)


def _attend(memory: ByteMemory, layer: LayerRun, config: AcceleratorConfig, threshold: int) -> AttentionResult:
    descriptor, formats = layer.descriptor, config.formats
    key_rows = layer.tokens if Flag.LIVE_TOKENS in descriptor.flags else np.arange(layer.keys)
    query_heads = layer.query_heads

    def plane(name: str, heads: Integers, rows: Integers, bits: int) -> _Plane:
        distances = (getattr(descriptor, f"{name}_{unit}_bytes") for unit in ("row", "head"))
        starts = _addresses(getattr(descriptor, name), heads, rows, *distances)
        return _Plane(memory, starts, descriptor.head_dim, bits)

    query = plane("query", query_heads, query_row_places(layer), formats.query_bits)
    msb = plane("key_msb", layer.heads, key_rows, formats.key_msb_bits)
    lsb = plane("key_lsb", layer.heads, key_rows, formats.key_lsb_bits)
    value = plane("value", layer.heads, key_rows, formats.value_bits)
    progressive = Flag.PROGRESSIVE in descriptor.flags
    whole = msb.elements()
    if formats.key_lsb_bits:
        whole = join_planes(whole, lsb.elements(signed=False), formats.key_lsb_bits)
    # A threshold of 0 makes no first pass unsure, so the LSB planes count nothing.
    key = msb_only(whole, formats.key_lsb_bits) if progressive and threshold == 0 else whole
    layer.row_keys, valid = _row_keys(layer)
    layer.result = result = attention(
        AttentionOperands(
            query=query.elements(),
            key=key,
            value=value.elements(),
            factor=_score_factors(memory, layer),
            bias=None,
            value_scale=np.ones(layer.heads.size),
        ),
        formats,
        config.capacity,
        threshold if progressive else 0,
        descriptor.kept_values or None,
        valid,
    )
    every = slice(None)
    query.fetch(every)
    msb.fetch(every)
    if formats.key_lsb_bits:
        lsb.fetch(result.lsb_rows.reshape(layer.heads.size, -1).any(axis=1) if progressive else every)
    survivors = layer.fetched_survivors
    value.fetch(every) if survivors is None else value.fetch(np.arange(layer.heads.size)[:, None], survivors)
    return result


def _score_factors(memory: ByteMemory, layer: LayerRun) -> ScoreFactor:
    """Multiplier in the low 16 bits of a word, shift (at most 62) in the next ones."""
    heads = layer.descriptor.kv_heads * layer.descriptor.group
    image = memory.read(np.array(layer.descriptor.factors & memory.address_mask), FACTOR_BYTES * heads)
    words = np.frombuffer(image.tobytes(), "<u4").astype(np.int64)[layer.query_heads]
    return ScoreFactor(words & 0xFFFF, words >> 16 & ((1 << SCORE_SHIFT_BITS) - 1))


def _row_keys(layer: LayerRun) -> tuple[Integers, NDArray[np.bool_] | None]:
    """Keys of each row, int64 [rows], and what each row of a head sees, bool [queries, keys] or None for everything."""
    heads = layer.query_heads.size
    if Flag.CAUSAL not in layer.descriptor.flags:
        return np.full(heads * layer.queries, layer.keys), None
    seen = np.clip(layer.keys - layer.queries + 1 + np.arange(layer.queries), 1, layer.keys)
    return np.tile(seen, heads), np.arange(layer.keys) < seen[:, None]


def query_row_places(layer: LayerRun) -> Integers:
    """The memory row of each query and output of a head, int64 [queries]."""
    return layer.tokens if Flag.LIVE_QUERIES in layer.descriptor.flags else np.arange(layer.queries)


def query_addresses(layer: LayerRun) -> Integers:
    """Byte address of each query, int64 [slots x group, queries]."""
    descriptor = layer.descriptor
    return _addresses(
        descriptor.query,
        layer.query_heads,
        query_row_places(layer),
        descriptor.query_row_bytes,
        descriptor.query_head_bytes,
    )


def output_addresses(layer: LayerRun) -> Integers:
    """Byte address of each output row, int64 [slots x group, queries]."""
    descriptor = layer.descriptor
    return _addresses(
        descriptor.output,
        layer.query_heads,
        query_row_places(layer),
        descriptor.output_row_bytes,
        descriptor.output_head_bytes,
    )


def _accumulate(layer: LayerRun, result: AttentionResult, config: AcceleratorConfig, state: MachineState) -> None:
    flags, formats = layer.descriptor.flags, config.formats
    if Flag.ACCUMULATE_TOKENS in flags:
        # Importance belongs to the place in the row, which is the place in the live list.
        part = state.token_importance[: layer.keys]
        part[:] = add_token_importance(part, result.probability, formats)
    if Flag.ACCUMULATE_HEADS in flags:
        heads = layer.query_heads
        state.head_importance[heads] = add_head_importance(state.head_importance[heads], result.output, formats)


def _write_outputs(memory: ByteMemory, layer: LayerRun, result: AttentionResult, config: AcceleratorConfig) -> None:
    rows = result.output.reshape(-1, layer.descriptor.head_dim)
    places = output_addresses(layer).reshape(-1).tolist()
    for address, row in zip(places, packed(rows, config.formats.output_bits), strict=True):
        memory.write(address, row)


def _prune(layer: LayerRun, config: AcceleratorConfig, state: MachineState) -> None:
    descriptor = layer.descriptor
    if Flag.PRUNE_TOKENS in descriptor.flags:
        layer.prune_tokens = state.copy()
        live, keep = state.tokens.size, descriptor.keep_tokens
        if keep < live:
            kept = top_k(state.token_importance[:live], keep)
            scores = state.token_importance[kept]
            # Whole words are read and cleared.
            lanes = config.softmax.lanes
            state.token_importance[: -(-live // lanes) * lanes] = 0
            state.token_importance[:keep] = scores
            state.tokens = state.tokens[kept]
    if Flag.PRUNE_HEADS in descriptor.flags:
        layer.prune_heads = state.copy()
        alive = np.flatnonzero(state.alive)
        if descriptor.keep_heads < alive.size:
            kept = alive[top_k(state.head_importance[alive], descriptor.keep_heads)]
            state.alive = np.isin(np.arange(state.alive.size), kept)


def report_records(layer: LayerRun, state: MachineState) -> list[int]:
    """The 64-bit records: header, live tokens, live heads."""
    assert layer.result is not None
    repeated = int(layer.result.lsb_rows.sum())
    alive = np.flatnonzero(state.alive).tolist()
    records = [state.tokens.size | len(alive) << 16 | (repeated & 0xFFFFFFFF) << 32]
    tokens = zip(state.tokens.tolist(), state.token_importance.tolist(), strict=False)
    records += [token | importance << 16 for token, importance in tokens]
    records += [head | int(state.head_importance[head]) << 8 for head in alive]
    return records


def _report(memory: ByteMemory, layer: LayerRun, result: AttentionResult, state: MachineState) -> None:
    for number, record in enumerate(report_records(layer, state)):
        memory.write(
            layer.descriptor.report + REPORT_RECORD_BYTES * number, record.to_bytes(REPORT_RECORD_BYTES, "little")
        )
