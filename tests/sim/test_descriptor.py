"""The descriptor: one table of fields, and every rule that makes one bad."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES
from topsieve_sim.golden.descriptor import (
    FIELDS,
    FLAG_MEANINGS,
    Descriptor,
    Flag,
    LiveCounts,
    decode_descriptor,
    descriptor_problem,
    encode_descriptor,
)

TINY = load_config("tiny")
GOOD = Descriptor(keys=9, queries=2, kv_heads=2, group=2, head_dim=8, output=64, output_row_bytes=12)
LIVE = LiveCounts(tokens=5, heads=3, reset_heads=4)


def test_fields_do_not_overlap_and_fit_the_descriptor() -> None:
    taken = [byte for field in FIELDS for byte in range(field.offset, field.offset + field.size_bytes)]
    assert len(set(taken)) == len(taken)
    assert max(taken) < DESCRIPTOR_BYTES
    assert all(field.offset % field.size_bytes == 0 for field in FIELDS)
    assert all(field.used_bits <= 8 * field.size_bytes for field in FIELDS)
    assert set(FLAG_MEANINGS) == set(Flag)


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    values = {field.name: draw(st.integers(0, (1 << 8 * field.size_bytes) - 1)) for field in FIELDS}
    return Descriptor(**{**values, "flags": Flag(values["flags"])})


@given(descriptors())
def test_what_is_encoded_is_decoded(descriptor: Descriptor) -> None:
    image = encode_descriptor(descriptor)
    assert len(image) == DESCRIPTOR_BYTES
    assert decode_descriptor(image) == descriptor


def test_places_of_the_contract() -> None:
    image = encode_descriptor(Descriptor(flags=Flag.INTERRUPT, kv_heads=3, value_row_bytes=7, report=1 << 63))
    assert image[1] == 0x40
    assert image[8] == 3
    assert image[32] == 7
    assert image[119] == 0x80
    assert image[120:] == bytes(8)


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="kv_heads"):
        encode_descriptor(Descriptor(kv_heads=256))
    with pytest.raises(InputError, match="128 bytes"):
        decode_descriptor(bytes(127))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"keys": 32},
        {"keys": 0, "flags": Flag.LIVE_TOKENS},
        {"queries": 0, "flags": Flag.LIVE_QUERIES},
        {"kv_heads": 4, "group": 1, "flags": Flag.LIVE_HEADS},
        {"kv_heads": 3, "group": 1, "flags": Flag.LIVE_HEADS | Flag.RESET_HEADS},
        {"keep_tokens": 1, "flags": Flag.PRUNE_TOKENS},
        {"report": 6},
        {"kept_values": 65535, "flags": Flag.PROGRESSIVE},
    ],
)
def test_good_descriptors(change: dict[str, Any]) -> None:
    assert descriptor_problem(dataclasses.replace(GOOD, **change), LIVE, TINY) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"flags": Flag(1 << 15)}, "unknown flags"),
        ({"keys": 0}, "keys of a row"),
        ({"keys": 33}, "keys of a row"),
        ({"keys": 33, "flags": Flag.RESET_TOKENS}, "keys out of range"),
        ({"queries": 0}, "queries"),
        ({"queries": 33}, "queries"),
        ({"kv_heads": 0}, "kv_heads"),
        ({"group": 0}, "kv_heads"),
        ({"group": 3}, "kv_heads"),
        ({"head_dim": 0}, "head_dim"),
        ({"head_dim": 9}, "head_dim"),
        ({"kv_heads": 3, "group": 1, "flags": Flag.LIVE_HEADS}, "last reset_heads"),
        ({"flags": Flag.PRUNE_HEADS, "keep_heads": 1}, "group above 1"),
        ({"kv_heads": 4, "group": 1, "flags": Flag.PRUNE_HEADS}, "keep_heads"),
        ({"flags": Flag.PRUNE_TOKENS}, "keep_tokens"),
        ({"key_msb_row_bytes": 65536}, "row distance"),
        ({"output": 66}, "output"),
        ({"output_row_bytes": 13}, "output"),
        ({"output_head_bytes": 2}, "output"),
        ({"report": 6, "flags": Flag.REPORT}, "report"),
    ],
)
def test_bad_descriptors(change: dict[str, Any], problem: str) -> None:
    assert problem in (descriptor_problem(dataclasses.replace(GOOD, **change), LIVE, TINY) or "")


def test_a_list_that_was_never_set_is_empty() -> None:
    for flag in (Flag.LIVE_TOKENS, Flag.LIVE_QUERIES, Flag.PRUNE_TOKENS):
        bad = dataclasses.replace(GOOD, flags=flag, keep_tokens=1)
        assert descriptor_problem(bad, LiveCounts(), TINY)
        assert descriptor_problem(dataclasses.replace(bad, flags=flag | Flag.RESET_TOKENS), LiveCounts(), TINY) is None


def test_progressive_needs_an_lsb_plane() -> None:
    plain = load_config("tiny", ["formats.key_lsb_bits=0"])
    assert descriptor_problem(dataclasses.replace(GOOD, flags=Flag.PROGRESSIVE), LIVE, plain)
