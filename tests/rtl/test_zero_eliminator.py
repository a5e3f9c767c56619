# amaranth: UnusedElaboratable=no
"""The zero eliminator's RTL against its stepped model, at any width and for any payload."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.harness import ALL_ENGINES, compare, engine_or_skip, stalled_cases
from topsieve_rtl.cosim import Design, only_valid_lanes
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.stream import Element
from topsieve_rtl.topk import ZeroEliminator as Unit
from topsieve_sim.stepped.zero_eliminator import ZeroEliminator as Model

WIDTHS = st.integers(1, 12) | st.sampled_from([16, 17])


def masked_beats(lanes: int, bits: int) -> st.SearchStrategy[tuple]:
    """Any payloads with any mask; the mask is an integer, lane 0 in bit 0."""
    payloads = st.tuples(*[st.integers(0, 2**bits - 1)] * lanes)
    return st.tuples(payloads, st.integers(0, 2**lanes - 1), st.integers(0, 1))


class Masked(Model):
    """The model with the mask as the integer that crosses the port, and the view of valid lanes."""

    def __init__(self, lanes: int) -> None:
        super().__init__(lanes)
        inner = self.function
        self.function = lambda beat: only_valid_lanes(
            inner((beat[0], tuple(beat[1] >> lane & 1 for lane in range(lanes)), beat[2]))
        )


def design(lanes: int, bits: int) -> Design:
    return Design(Unit(bits, lanes), "zero_eliminator", {"o": only_valid_lanes})


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_equals_the_stepped_model(data):
    lanes, bits = data.draw(WIDTHS), data.draw(st.integers(1, 9))
    cases = data.draw(st.lists(stalled_cases(masked_beats(lanes, bits)), min_size=4, max_size=4))
    compare(design(lanes, bits), lambda: Masked(lanes), cases)


@pytest.mark.full
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_stepped_model_at_length(data):
    lanes, bits = data.draw(WIDTHS), data.draw(st.integers(1, 9))
    cases = data.draw(st.lists(stalled_cases(masked_beats(lanes, bits)), min_size=20, max_size=20))
    compare(design(lanes, bits), lambda: Masked(lanes), cases)


@pytest.mark.parametrize("engine", ALL_ENGINES)
@settings(max_examples=1, deadline=None)
@given(st.data())
def test_every_engine_agrees(engine, data):
    cases = data.draw(st.lists(stalled_cases(masked_beats(5, 6)), min_size=3, max_size=3))
    compare(design(5, 6), lambda: Masked(5), cases, engine_or_skip(engine))


def test_no_port_reaches_another_without_a_register():
    assert combinational_paths(Unit(Element(6, 4), 5)) == []


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="lanes must be at least 1, got 0"):
        Unit(4, 0)
