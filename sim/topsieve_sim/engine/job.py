"""From operands to a job of the accelerator: tensors and descriptors in memory, ready for `golden.accelerator.run`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator_latency import (
    DESCRIPTOR_BYTES,
    FACTOR_BYTES,
    REPORT_RECORD_BYTES,
    ROW_STRIDE_BITS,
)
from topsieve_sim.golden.attention import AttentionOperands, quantise_operands
from topsieve_sim.golden.byte_memory import packed, unpacked
from topsieve_sim.golden.descriptor import NO_FLAGS, Descriptor, Flag, encode_descriptor
from topsieve_sim.golden.numbers import Integers, split_planes
from topsieve_sim.golden.progressive import integer_threshold
from topsieve_sim.timing.operand_layout import page_aligned, row_bytes
from topsieve_sim.trace import AttentionGroup, Trace


class TensorOrder(StrEnum):
    """Which rows of a tensor are neighbours."""

    HEAD_MAJOR = "head_major"  # the tokens of a head
    TOKEN_MAJOR = "token_major"  # the heads of a token


@dataclass(frozen=True, kw_only=True)
class LayerJob:
    """One descriptor to be: integer operands and what the machine is to do with them.

    `operands` hold every token and head that may be live. `flags` without `LAST`, which the job sets.
    """

    operands: AttentionOperands
    flags: Flag = NO_FLAGS
    kept_values: int = 0
    keep_tokens: int = 0
    keep_heads: int = 0


@dataclass(frozen=True)
class Job:
    """A memory image, from address 0 on, with everything in it.

    threshold : for the register `progressive_threshold`. output_shapes : (heads, rows, head_dim) of each descriptor's output.
    """

    config: AcceleratorConfig
    image: bytes
    descriptor_address: int
    threshold: int
    descriptors: tuple[Descriptor, ...]
    output_shapes: tuple[tuple[int, int, int], ...]

    def outputs(self, memory: bytes, layer: int) -> Integers:
        """The outputs of descriptor `layer` in `memory` after a run, int64 [heads, rows, head_dim]; unwritten rows are 0."""
        descriptor, (heads, rows, head_dim) = self.descriptors[layer], self.output_shapes[layer]
        bits = self.config.formats.output_bits
        starts = (
            descriptor.output
            + np.arange(heads)[:, None] * descriptor.output_head_bytes
            + np.arange(rows) * descriptor.output_row_bytes
        )
        places = starts[..., None] + np.arange(row_bytes(head_dim, bits))
        return unpacked(np.frombuffer(memory, np.uint8)[places], head_dim, bits, signed=True)

    def report(self, memory: bytes, layer: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
        """Live tokens and heads with their importance, and the rows computed twice, from the report of a descriptor."""
        begin = self.descriptors[layer].report
        header = int.from_bytes(memory[begin : begin + REPORT_RECORD_BYTES], "little")
        tokens, heads = header & 0xFFFF, header >> 16 & 0xFF
        end = begin + REPORT_RECORD_BYTES * (1 + tokens + heads)
        records = np.frombuffer(memory[begin + REPORT_RECORD_BYTES : end], "<u8").tolist()
        return (
            [(record & 0xFFFF, record >> 16) for record in records[:tokens]],
            [(record & 0xFF, record >> 8) for record in records[tokens:]],
            header >> 32,
        )


@dataclass
class _Image:
    """Memory that grows page by page; page 0 is free."""

    data: bytearray = field(default_factory=lambda: bytearray(page_aligned(1)))

    def place(self, size: int) -> int:
        """Address of `size` fresh bytes at a page."""
        address = page_aligned(len(self.data))
        self.data.extend(bytes(address + size - len(self.data)))
        return address

    def tensor(self, elements: Integers, bits: int, order: TensorOrder, row_multiple: int = 1) -> tuple[int, int, int]:
        """Write [heads, rows, n] elements of `bits`; address, distance of rows, distance of heads."""
        heads, rows, width = elements.shape
        size = -(-row_bytes(width, bits) // row_multiple) * row_multiple
        address = self.place(heads * rows * size)
        row_distance, head_distance = (size, rows * size) if order is TensorOrder.HEAD_MAJOR else (heads * size, size)
        for head in range(heads):
            for row, image in enumerate(packed(elements[head], bits)):
                begin = address + head * head_distance + row * row_distance
                self.data[begin : begin + len(image)] = image
        return address, row_distance, head_distance


def build_job(
    config: AcceleratorConfig,
    layers: Sequence[LayerJob],
    *,
    threshold: float | None = None,
    order: TensorOrder = TensorOrder.HEAD_MAJOR,
) -> Job:
    """Memory and descriptors of `layers`, one after the other; every tensor begins at a page.

    Parameters
    ----------
    threshold : of the progressive decision; default: the configuration's.
    order : of all tensors.

    Raises
    ------
    InputError
        no layers, or a distance of rows is too long for a descriptor.
    """
    if not layers:
        raise InputError("a job needs a layer", field="layers", value=0, allowed="at least 1")
    image = _Image()
    table = image.place(DESCRIPTOR_BYTES * len(layers))
    descriptors, shapes = [], []
    for number, layer in enumerate(layers):
        last = Flag.LAST if number == len(layers) - 1 else NO_FLAGS
        descriptors.append(_descriptor(config, image, layer, last, order))
        heads, queries, head_dim = layer.operands.query.shape
        shapes.append((heads, queries, head_dim))
    for number, descriptor in enumerate(descriptors):
        begin = table + DESCRIPTOR_BYTES * number
        image.data[begin : begin + DESCRIPTOR_BYTES] = encode_descriptor(descriptor)
    image.place(0)
    steps = integer_threshold(config.progressive.threshold if threshold is None else threshold, config.formats)
    return Job(config, bytes(image.data), table, steps, tuple(descriptors), tuple(shapes))


def _descriptor(
    config: AcceleratorConfig, image: _Image, layer: LayerJob, last: Flag, order: TensorOrder
) -> Descriptor:
    operands, formats = layer.operands, config.formats
    heads, queries, head_dim = operands.query.shape
    kv_heads, keys, _ = operands.key.shape
    msb, lsb = split_planes(operands.key, formats.key_lsb_bits)
    tensors = {
        "query": image.tensor(operands.query, formats.query_bits, order),
        "key_msb": image.tensor(msb, formats.key_msb_bits, order),
        "key_lsb": image.tensor(lsb, formats.key_lsb_bits, order) if formats.key_lsb_bits else (0, 0, 0),
        "value": image.tensor(operands.value, formats.value_bits, order),
        "output": image.tensor(
            np.zeros((heads, queries, head_dim), np.int64), formats.output_bits, order, config.memory.bytes_per_cycle
        ),
    }
    for name, (_, distance, _) in tensors.items():
        if distance >= 1 << ROW_STRIDE_BITS:
            raise InputError(
                "rows too far apart for a descriptor",
                field=f"{name}_row_bytes",
                value=distance,
                allowed=f"at most {(1 << ROW_STRIDE_BITS) - 1}",
            )
    factors = image.place(FACTOR_BYTES * heads)
    multiplier, shift = (np.broadcast_to(part, heads).astype(np.int64) for part in operands.factor)
    words = (multiplier | shift << 16).astype("<u4").tobytes()
    image.data[factors : factors + len(words)] = words
    report = 0
    if Flag.REPORT in layer.flags:
        report = image.place(REPORT_RECORD_BYTES * (1 + config.capacity + config.importance.heads))
    return Descriptor(
        flags=layer.flags | last,
        keys=keys,
        queries=queries,
        kv_heads=kv_heads,
        group=heads // kv_heads,
        head_dim=head_dim,
        kept_values=layer.kept_values,
        keep_tokens=layer.keep_tokens,
        keep_heads=layer.keep_heads,
        factors=factors,
        report=report,
        **{name: address for name, (address, _, _) in tensors.items()},
        **{f"{name}_row_bytes": distance for name, (_, distance, _) in tensors.items()},
        **{f"{name}_head_bytes": distance for name, (_, _, distance) in tensors.items()},
    )


@dataclass(frozen=True)
class Cascade:
    """Tokens and heads that stay after each layer of a sequence; layers beyond the end prune nothing, nor does 0."""

    keep_tokens: Sequence[int] = ()
    keep_heads: Sequence[int] = ()


NO_CASCADE = Cascade()


def trace_job(
    trace: Trace,
    config: AcceleratorConfig,
    *,
    cascade: Cascade = NO_CASCADE,
    order: TensorOrder = TensorOrder.HEAD_MAJOR,
    report: bool = True,
) -> Job:
    """The attention groups of a trace with operands as one job, in which the machine itself prunes.

    Each sequence and step starts with all of its first group's tokens and heads alive and no importance. From then on the
    live list says which rows of the operands count, so the operands are to be those of every token: a dense run's. Several
    queries a head that are as many as the keys are the tokens themselves and are pruned with them.

    Parameters
    ----------
    cascade : what stays after each layer.
    report : write a report after each layer.

    Raises
    ------
    InputError
        a group has no operands, is not a whole layer, or does not fit a descriptor.
    """
    layers = []
    thresholds = set()
    begun: tuple[int, int] | None = None
    place = 0
    for group in _groups(trace):
        op = group.query_key
        if (op.sequence, op.step) != begun:
            begun, place = (op.sequence, op.step), 0
        layers.append(_layer_job(trace, config, group, cascade, place, report))
        thresholds.add(op.threshold)
        place += 1
    if len(thresholds) > 1:
        raise InputError(
            "a job has one threshold",
            field="query_key.threshold",
            value=sorted(thresholds),
            allowed="the same everywhere",
        )
    threshold = thresholds.pop() if thresholds else 0.0
    return build_job(config, layers, threshold=threshold or None, order=order)


def _groups(trace: Trace) -> Iterator[AttentionGroup]:
    for unit in trace.units():
        if isinstance(unit, AttentionGroup):
            if (unit.start, "query") not in trace.operands:
                raise InputError("an attention group without operands", field=f"op {unit.start} (query_key)")
            if (unit.start, "bias") in trace.operands:
                raise InputError("a descriptor has no bias", field=f"op {unit.start} (query_key)")
            yield unit


def _layer_job(
    trace: Trace, config: AcceleratorConfig, group: AttentionGroup, cascade: Cascade, place: int, report: bool
) -> LayerJob:
    op = group.query_key
    query, key = (trace.operands[group.start, name] for name in ("query", "key"))
    value = trace.operands[group.stop - 1, "value"]
    flags = Flag.ACCUMULATE_TOKENS | Flag.ACCUMULATE_HEADS | Flag.LIVE_TOKENS
    by_head = op.heads == op.kv_heads
    if place == 0:
        flags |= Flag.RESET_TOKENS | Flag.RESET_HEADS | Flag.CLEAR_IMPORTANCE
    if op.queries == op.keys:
        flags |= Flag.LIVE_QUERIES
    if by_head:
        flags |= Flag.LIVE_HEADS
    if op.causal:
        flags |= Flag.CAUSAL
    if config.progressive.enabled and config.formats.key_lsb_bits and op.threshold > 0:
        flags |= Flag.PROGRESSIVE
    if report:
        flags |= Flag.REPORT
    tokens, heads = (
        counts[place] if place < len(counts) else 0 for counts in (cascade.keep_tokens, cascade.keep_heads)
    )
    if tokens:
        flags |= Flag.PRUNE_TOKENS
    if heads:
        flags |= Flag.PRUNE_HEADS
    kept = group.probability_value.kept
    return LayerJob(
        operands=quantise_operands(query, key, value, config.formats),
        flags=flags,
        kept_values=kept if kept < op.keys else 0,
        keep_tokens=tokens,
        keep_heads=heads,
    )
