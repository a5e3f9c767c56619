"""The importance accumulators as units: additions and readouts in, accumulators out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from topsieve_rtl.cosim import Case, Channel
from topsieve_rtl.units.attention_cases import channels, draw_signed, draw_stalls, draw_unsigned, stall_arrays
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import (
    ImportanceLatencies,
    beats,
    head_importance_latencies,
    token_importance_latencies,
)
from topsieve_sim.golden.importance import add_head_importance, add_token_importance
from topsieve_sim.timing.importance import importance_times

_LATENCY_NOTE = (
    "An addition enters every cycle; a readout's first word leaves {} cycles after its command, then one a cycle, and "
    "additions enter again in the cycle after its last word is read."
)


class ImportanceUnit(Unit):
    """What token and head accumulators share."""

    port_notes: ClassVar[Mapping[str, str]] = {
        "i": "an addition to `word`; with `read` a readout of words 0 to `word`, with `clear` leaving zeros",
        "o": "the accumulators of a word; `last` ends the readout",
    }

    @abstractmethod
    def latencies(self, config: AcceleratorConfig) -> ImportanceLatencies:
        """Cycles of the unit."""

    @abstractmethod
    def shape(self, config: AcceleratorConfig) -> tuple[int, int]:
        """Words and lanes of the accumulators."""

    @abstractmethod
    def operands(self, config: AcceleratorConfig, generator: np.random.Generator) -> NDArray[np.int64]:
        """Operands of an addition."""

    @abstractmethod
    def added(self, config: AcceleratorConfig, total: NDArray[np.int64], operands: list[int]) -> NDArray[np.int64]:
        """The golden accumulators of a word after an addition."""

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        words, _ = self.shape(config)
        drawn = []
        expected = 0
        for _ in range(int(generator.integers(1, 5))):
            # Few words, so that additions to one follow each other at every distance.
            reached = int(generator.integers(1, words + 1))
            for _ in range(int(generator.integers(0, 30))):
                drawn.append((self.operands(config, generator).tolist(), int(generator.integers(reached)), 0, 0))
            last_word = int(generator.choice([words - 1, generator.integers(words)]))
            clear = int(generator.integers(2))
            drawn.append((self.operands(config, generator).tolist(), last_word, 1, clear))
            expected += last_word + 1
        arrivals, ready = draw_stalls(generator, len(drawn), 300)
        return Case.through(drawn, arrivals, ready, expected)

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        words, lanes = self.shape(config)
        total = np.zeros((words, lanes), np.int64)
        outputs, read_words = [], []
        for operands, word, read, clear in case.sources["i"].beats:
            read_words.append(word + 1 if read else 0)
            if not read:
                total[word] = self.added(config, total[word], operands)
                continue
            outputs += [(tuple(total[n].tolist()), int(n == word)) for n in range(word + 1)]
            if clear:
                total[: word + 1] = 0
        arrival, ready = stall_arrays(case)
        entered, left = importance_times(self.latencies(config), arrival, np.array(read_words, np.int64), ready)
        return channels(case, entered, left, outputs)


class TokenImportanceUnit(ImportanceUnit):
    """Column sums of probabilities."""

    name = "token_importance"
    summary = "Token importance: saturating column sums of probabilities, read out and cleared on command."
    latency_note = _LATENCY_NOTE.format("5")

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.attention import TokenImportance

        return TokenImportance(config)

    def latencies(self, config: AcceleratorConfig) -> ImportanceLatencies:
        return token_importance_latencies()

    def shape(self, config: AcceleratorConfig) -> tuple[int, int]:
        return beats(config.capacity, config.softmax.lanes), config.softmax.lanes

    def operands(self, config: AcceleratorConfig, generator: np.random.Generator) -> NDArray[np.int64]:
        # Probabilities, or sums that come back.
        bits = generator.choice([config.formats.probability_bits, config.formats.token_importance_bits])
        return draw_unsigned(generator, int(bits), config.softmax.lanes)

    def added(self, config: AcceleratorConfig, total: NDArray[np.int64], operands: list[int]) -> NDArray[np.int64]:
        return add_token_importance(total, np.array([operands]), config.formats)


class HeadImportanceUnit(ImportanceUnit):
    """Absolute sums of output rows."""

    name = "head_importance"
    summary = "Head importance: saturating absolute sums of output rows, read out and cleared on command."
    latency_note = _LATENCY_NOTE.format("6 + ceil(log2(max_head_dim))")

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.attention import HeadImportance

        return HeadImportance(config)

    def latencies(self, config: AcceleratorConfig) -> ImportanceLatencies:
        return head_importance_latencies(config)

    def shape(self, config: AcceleratorConfig) -> tuple[int, int]:
        return config.importance.heads, 1

    def operands(self, config: AcceleratorConfig, generator: np.random.Generator) -> NDArray[np.int64]:
        return draw_signed(generator, config.formats.output_bits, config.max_head_dim)

    def added(self, config: AcceleratorConfig, total: NDArray[np.int64], operands: list[int]) -> NDArray[np.int64]:
        return add_head_importance(total, np.array([[operands]]), config.formats)
