# amaranth: UnusedElaboratable=no
"""Layers of MiniLM over real sentences on the `ecp5` machine: memory, cycles and counters equal the models'."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from rtl.harness import tool_or_skip
from topsieve.bit_plans import Operands, minilm_operands
from topsieve_rtl.cosim import Case, Engine, require_engine
from topsieve_rtl.units.accelerator import AcceleratorUnit
from topsieve_rtl.verify import verify
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine.job import LayerJob, build_job
from topsieve_sim.golden.attention import quantise_operands
from topsieve_sim.golden.descriptor import Flag

ECP5 = load_config("ecp5")
LAYERS = 6
# All heads of a layer, tokens and heads chosen by the machine, a report at the end.
FLAGS = (
    Flag.PROGRESSIVE | Flag.LIVE_TOKENS | Flag.LIVE_QUERIES | Flag.LIVE_HEADS | Flag.ACCUMULATE_TOKENS
    | Flag.ACCUMULATE_HEADS | Flag.CLEAR_IMPORTANCE | Flag.RESET_TOKENS | Flag.RESET_HEADS | Flag.PRUNE_TOKENS
    | Flag.PRUNE_HEADS | Flag.REPORT
)  # fmt: skip


@cache
def sentences(count: int) -> list[list[Operands]]:
    """Operands of `count` pieces of text, each with a line a layer."""
    flat = minilm_operands(count)
    return [flat[sentence::count] for sentence in range(count)]


class MiniLmLayer(AcceleratorUnit):
    """One sentence a case, the layers in turn; half of the tokens and a quarter of the heads are pruned after it."""

    def __init__(self, count: int) -> None:
        super().__init__(memory_bytes=1 << 19)
        self.texts = sentences(count)
        self.played = 0

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        number = self.played
        self.played += 1
        operands = self.texts[number][number % LAYERS]
        heads, tokens, _ = operands.query.shape
        layer = LayerJob(
            operands=quantise_operands(*operands, config.formats),
            flags=FLAGS,
            keep_tokens=tokens // 2,
            keep_heads=heads * 3 // 4,
        )
        job = build_job(config, [layer])
        return self.job_case(config, job.image, job.descriptor_address, job.threshold)


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.full)])
def test_sentences_leave_the_machine_as_the_models_say(count: int) -> None:
    tool_or_skip(lambda: require_engine(Engine.VERILATOR))
    found = verify(MiniLmLayer(count), ECP5, cases=count, engine=Engine.VERILATOR)
    assert found.mismatches == 0, str(found.shown)
    assert found.cases == count
