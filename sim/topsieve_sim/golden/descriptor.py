"""The descriptor of one layer of one sequence: its fields in memory, encoding, and what makes one bad.

`FIELDS` and `Flag` are the only table of them; the RTL's record and the register documents are built from it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from enum import IntFlag
from typing import NamedTuple

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES, ROW_STRIDE_BITS


class Flag(IntFlag):
    """Bits of `flags`."""

    LAST = 1 << 0
    CAUSAL = 1 << 1
    PROGRESSIVE = 1 << 2
    LIVE_TOKENS = 1 << 3
    LIVE_QUERIES = 1 << 4
    LIVE_HEADS = 1 << 5
    ACCUMULATE_TOKENS = 1 << 6
    ACCUMULATE_HEADS = 1 << 7
    CLEAR_IMPORTANCE = 1 << 8
    RESET_TOKENS = 1 << 9
    RESET_HEADS = 1 << 10
    PRUNE_TOKENS = 1 << 11
    PRUNE_HEADS = 1 << 12
    REPORT = 1 << 13
    INTERRUPT = 1 << 14


NO_FLAGS = Flag(0)

FLAG_MEANINGS: dict[Flag, str] = {
    Flag.LAST: "the job ends after this descriptor",
    Flag.CAUSAL: "row r of Q sees the first keys - Q + r + 1 keys, at least one",
    Flag.PROGRESSIVE: "first passes read MSB planes alone",
    Flag.LIVE_TOKENS: "keys and values are gathered by the live list",
    Flag.LIVE_QUERIES: "queries are gathered by the live list, outputs go to their token's row",
    Flag.LIVE_HEADS: "heads that are not live are passed over",
    Flag.ACCUMULATE_TOKENS: "probabilities are added to the token importance",
    Flag.ACCUMULATE_HEADS: "output magnitudes are added to the head importance",
    Flag.CLEAR_IMPORTANCE: "all importance is 0 before the layer",
    Flag.RESET_TOKENS: "tokens 0 to keys - 1 are live before the layer",
    Flag.RESET_HEADS: "all query heads are live before the layer",
    Flag.PRUNE_TOKENS: "keep_tokens tokens stay after the layer",
    Flag.PRUNE_HEADS: "keep_heads heads stay after the layer",
    Flag.REPORT: "live tokens and heads are written with their importance",
    Flag.INTERRUPT: "raise the interrupt after this descriptor",
}


class DescriptorField(NamedTuple):
    """One field: byte offset, bytes it takes in memory, and how many of their low bits the machine uses."""

    name: str
    offset: int
    size_bytes: int
    used_bits: int
    meaning: str


def _distances(offset: int, unit: str, used_bits: int) -> list[DescriptorField]:
    names = ("query", "key_msb", "key_lsb", "value", "output")
    return [
        DescriptorField(f"{name}_{unit}_bytes", offset + 4 * place, 4, used_bits, f"distance of {name} {unit}s")
        for place, name in enumerate(names)
    ]


FIELDS: tuple[DescriptorField, ...] = (
    DescriptorField("flags", 0, 4, len(Flag), "see `Flag`"),
    DescriptorField("keys", 4, 2, 16, "tokens; the row length without `live_tokens`"),
    DescriptorField("queries", 6, 2, 16, "rows a query head without `live_queries`"),
    DescriptorField("kv_heads", 8, 1, 8, "key-value heads in memory"),
    DescriptorField("group", 9, 1, 8, "query heads that share a key-value head"),
    DescriptorField("head_dim", 10, 2, 16, "elements of a row"),
    DescriptorField("kept_values", 12, 2, 16, "survivors of local value selection a row, 0 = all"),
    DescriptorField("keep_tokens", 14, 2, 16, "tokens that stay, with `prune_tokens`"),
    DescriptorField("keep_heads", 16, 1, 8, "heads that stay, with `prune_heads`"),
    *_distances(20, "row", ROW_STRIDE_BITS),
    *_distances(40, "head", 32),
    *(
        DescriptorField(name, 64 + 8 * place, 8, 64, f"address of {what}")
        for place, (name, what) in enumerate(
            (
                ("query", "the queries"),
                ("key_msb", "the keys' MSB plane"),
                ("key_lsb", "the keys' LSB plane"),
                ("value", "the values"),
                ("output", "the outputs"),
                ("factors", "the score factors"),
                ("report", "the report"),
            )
        )
    ),
)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """The fields of `FIELDS`, by name."""

    flags: Flag = NO_FLAGS
    keys: int = 0
    queries: int = 0
    kv_heads: int = 0
    group: int = 1
    head_dim: int = 0
    kept_values: int = 0
    keep_tokens: int = 0
    keep_heads: int = 0
    query_row_bytes: int = 0
    key_msb_row_bytes: int = 0
    key_lsb_row_bytes: int = 0
    value_row_bytes: int = 0
    output_row_bytes: int = 0
    query_head_bytes: int = 0
    key_msb_head_bytes: int = 0
    key_lsb_head_bytes: int = 0
    value_head_bytes: int = 0
    output_head_bytes: int = 0
    query: int = 0
    key_msb: int = 0
    key_lsb: int = 0
    value: int = 0
    output: int = 0
    factors: int = 0
    report: int = 0


assert tuple(field.name for field in fields(Descriptor)) == tuple(field.name for field in FIELDS)


def encode_descriptor(descriptor: Descriptor) -> bytes:
    """The 128 bytes of `descriptor`, little endian, reserved bytes 0.

    Raises
    ------
    InputError
        a field does not fit its bytes.
    """
    image = bytearray(DESCRIPTOR_BYTES)
    for field, value in zip(FIELDS, astuple(descriptor), strict=True):
        if not 0 <= value < 1 << 8 * field.size_bytes:
            raise InputError(
                "does not fit its field",
                source="descriptor",
                field=field.name,
                value=int(value),
                allowed=f"0 to {(1 << 8 * field.size_bytes) - 1}",
            )
        image[field.offset : field.offset + field.size_bytes] = int(value).to_bytes(field.size_bytes, "little")
    return bytes(image)


def decode_descriptor(image: bytes) -> Descriptor:
    """The descriptor in 128 bytes; reserved bytes are ignored, unknown flags stay set.

    Raises
    ------
    InputError
        `image` is not 128 bytes.
    """
    if len(image) != DESCRIPTOR_BYTES:
        raise InputError("wrong size", source="descriptor", value=len(image), allowed=f"{DESCRIPTOR_BYTES} bytes")
    values = {
        field.name: int.from_bytes(image[field.offset : field.offset + field.size_bytes], "little") for field in FIELDS
    }
    flags = Flag(values.pop("flags"))
    return Descriptor(flags=flags, **values)


class LiveCounts(NamedTuple):
    """What a check knows of the machine: live tokens, live heads, and how many heads the last `reset_heads` made."""

    tokens: int = 0
    heads: int = 0
    reset_heads: int = 0


class RowCounts(NamedTuple):
    """Counts that follow from a descriptor and the live lists: keys of a full row, rows a query head."""

    keys: int
    queries: int


def counts_after_reset(descriptor: Descriptor, live: LiveCounts) -> LiveCounts:
    """The live counts once `reset_tokens` and `reset_heads` are done."""
    heads = descriptor.kv_heads * descriptor.group
    tokens = descriptor.keys if Flag.RESET_TOKENS in descriptor.flags else live.tokens
    if Flag.RESET_HEADS in descriptor.flags:
        return LiveCounts(tokens, heads, heads)
    return LiveCounts(tokens, live.heads, live.reset_heads)


def row_counts(descriptor: Descriptor, live: LiveCounts) -> RowCounts:
    """Keys of a row and rows of a query head; `live` after the resets."""
    return RowCounts(
        live.tokens if Flag.LIVE_TOKENS in descriptor.flags else descriptor.keys,
        live.tokens if Flag.LIVE_QUERIES in descriptor.flags else descriptor.queries,
    )


def descriptor_problem(descriptor: Descriptor, live: LiveCounts, config: AcceleratorConfig) -> str | None:
    """What makes the machine stop with error 1, in words, or None; `live` is the state before the resets.

    The RTL computes the same conditions, in the order of this function; all are checked before anything is cleared,
    reset or written.
    """
    flags = descriptor.flags
    live = counts_after_reset(descriptor, live)
    rows = row_counts(descriptor, live)
    heads = descriptor.kv_heads * descriptor.group
    bus = config.memory.bytes_per_cycle - 1
    uses_list = flags & (Flag.LIVE_TOKENS | Flag.LIVE_QUERIES | Flag.PRUNE_TOKENS)
    by_head = flags & (Flag.LIVE_HEADS | Flag.PRUNE_HEADS)
    conditions = (
        (int(flags) >> len(Flag) != 0, "unknown flags"),
        (Flag.RESET_TOKENS in flags and not 1 <= descriptor.keys <= config.capacity, "keys out of range"),
        (not 1 <= rows.keys <= config.capacity, "keys of a row out of range"),
        (not 1 <= rows.queries <= config.capacity, "queries out of range"),
        (bool(uses_list) and live.tokens == 0, "no live tokens"),
        (not 1 <= heads <= config.importance.heads, "kv_heads x group out of range"),
        (not 1 <= descriptor.head_dim <= config.max_head_dim, "head_dim out of range"),
        (bool(by_head) and descriptor.group != 1, "heads live or pruned with group above 1"),
        (bool(by_head) and descriptor.kv_heads != live.reset_heads, "kv_heads is not that of the last reset_heads"),
        (Flag.PROGRESSIVE in flags and config.formats.key_lsb_bits == 0, "progressive without an LSB plane"),
        (Flag.PRUNE_TOKENS in flags and descriptor.keep_tokens == 0, "keep_tokens is 0"),
        (Flag.PRUNE_HEADS in flags and descriptor.keep_heads == 0, "keep_heads is 0"),
        (
            any(
                getattr(descriptor, field.name) >> field.used_bits
                for field in FIELDS
                if field.name.endswith("_row_bytes")
            ),
            f"a row distance above {(1 << ROW_STRIDE_BITS) - 1} bytes",
        ),
        (
            bool((descriptor.output | descriptor.output_row_bytes | descriptor.output_head_bytes) & bus),
            "output is not aligned to the bus",
        ),
        (Flag.REPORT in flags and bool(descriptor.report & bus), "report is not aligned to the bus"),
    )
    return next((problem for bad, problem in conditions if bad), None)
