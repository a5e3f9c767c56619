"""Pseudo-random stalls that a bench's hardware and the timing model draw alike, from one seed."""

from __future__ import annotations

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import Elaboratable
from numpy.typing import NDArray

SEED_BITS = 32
CHANCE_BITS = 8
_LENGTH_BITS = 3
_MASK = (1 << SEED_BITS) - 1
# Multiples of it, the golden ratio of 32 bits, keep the states of channels apart.
_SPREAD = 0x9E3779B9
# What stalls by itself on the memory of a bench: a place in this table is the channel of a `StallSource`.
STALLS = (
    *(f"{port}_{what}" for port in ("kv", "q") for what in ("ready", "delay", "gap")),
    "aw_ready",
    "w_ready",
    "b_delay",
)


class StallSource(Elaboratable):
    """A stall of `cycles` cycles (0 = none) that changes after each cycle with `advance`.

    The state is Marsaglia's 32-bit xorshift (13, 17, 5). Never a stall before the first `load`.

    Parameters
    ----------
    channel : number; channels of one seed differ.
    load, seed, chance : signals; in the cycle of `load` the source starts anew. One in 256 / `chance` is a stall.
    """

    def __init__(self, channel: int, load: Signal, seed: Signal, chance: Signal) -> None:
        self._salt = _salt(channel)
        self._load, self._seed, self._chance = load, seed, chance
        self.advance = Signal()
        self.cycles = Signal(_LENGTH_BITS + 1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state, limit = Signal(SEED_BITS, init=1), Signal(CHANCE_BITS)
        first, left, right, following = (
            Signal(SEED_BITS, name=name) for name in ("first", "left", "right", "following")
        )
        m.d.comb += [
            self.cycles.eq(Mux(state[:CHANCE_BITS] < limit, state[CHANCE_BITS:][:_LENGTH_BITS] + 1, 0)),
            first.eq(self._seed ^ self._salt),
            left.eq(state ^ (state << 13)),
            right.eq(left ^ (left >> 17)),
            following.eq(right ^ (right << 5)),
        ]
        with m.If(self._load):
            m.d.sync += [state.eq(Mux(first == 0, 1, first)), limit.eq(self._chance)]
        with m.Elif(self.advance):
            m.d.sync += state.eq(following)
        return m


def stall_cycles(seed: int, channel: int, chance: int, count: int) -> NDArray[np.int64]:
    """The first `count` values of `StallSource.cycles` after its `load`, int64 [count]."""
    state = (seed ^ _salt(channel)) & _MASK or 1
    found = np.zeros(count, np.int64)
    for place in range(count):
        if state & ((1 << CHANCE_BITS) - 1) < chance:
            found[place] = (state >> CHANCE_BITS & ((1 << _LENGTH_BITS) - 1)) + 1
        state ^= state << 13 & _MASK
        state ^= state >> 17
        state ^= state << 5 & _MASK
    return found


def _salt(channel: int) -> int:
    return _SPREAD * (channel + 1) & _MASK
