# amaranth: UnusedElaboratable=no
"""The FIFO against the stepped model: a credit pipeline of one cycle."""

from __future__ import annotations

import pytest
from amaranth import unsigned
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.harness import compare, stalled_cases
from topsieve_rtl.cosim import Design
from topsieve_rtl.stream import Beat, Element, Fifo, Storage
from topsieve_sim.stepped.pipeline import CreditPipeline as SteppedPipeline


@settings(max_examples=40, deadline=None)
@given(
    depth=st.integers(1, 9),
    storage=st.sampled_from([*[(kind, True) for kind in Storage], (Storage.LUT_RAM, False)]),
    cases=st.lists(stalled_cases(st.integers(0, 255)), min_size=1, max_size=3),
)
def test_every_depth_and_storage_is_the_same_fifo(depth, storage, cases):
    kind, front = storage
    design = Design(Fifo(unsigned(8), depth, kind, front=front), "fifo")
    compare(design, lambda: SteppedPipeline(lambda beat: beat, 1, depth), cases)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), lanes=st.integers(1, 3), signed=st.booleans())
def test_structured_beats_pass_unchanged(data, lanes, signed):
    score = st.integers(-8, 7) if signed else st.integers(0, 15)
    element = st.tuples(score, st.integers(0, 31))
    beat = st.tuples(st.tuples(*[element] * lanes), st.integers(0, lanes), st.integers(0, 1))
    design = Design(Fifo(Beat(Element(4, 5, score_signed=signed), lanes), 3), "fifo")
    compare(design, lambda: SteppedPipeline(lambda beat: beat, 1, 3), [data.draw(stalled_cases(beat))])


def test_depth_is_checked():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        Fifo(unsigned(8), 0)


def test_block_ram_needs_its_first_word_in_a_register():
    with pytest.raises(ValueError, match="only LUT RAM can do without"):
        Fifo(unsigned(8), 4, Storage.BLOCK_RAM, front=False)


@pytest.mark.parametrize(("lanes", "message"), [(0, "lanes must be at least 1, got 0")])
def test_beat_lanes_are_checked(lanes, message):
    with pytest.raises(ValueError, match=message):
        Beat(unsigned(4), lanes)


def test_element_widths_are_checked():
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 3"):
        Element(0, 3)
