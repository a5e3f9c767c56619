# amaranth: UnusedElaboratable=no
"""Real models on the `ecp5` machine, as Verilator runs its Verilog: memory, cycles and counters equal the models'."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rtl.harness import tool_or_skip
from rtl.harness.model_jobs import byte_gpt_operands, decoding_job, sentence_job, sentences
from topsieve_rtl.cosim import Case, Engine, require_engine
from topsieve_rtl.units.accelerator import AcceleratorUnit
from topsieve_rtl.verify import verify
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine.job import Job
from topsieve_sim.golden.accelerator import run
from topsieve_sim.golden.descriptor import Flag

ECP5 = load_config("ecp5")
SEED = 1


class Played(AcceleratorUnit):
    """One job a case, in order; every second one on a memory that stalls."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        super().__init__(memory_bytes=1 << 20)
        self.jobs = jobs
        self.count = 0

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        job = next(self.jobs)
        self.count += 1
        stalls = (SEED, 60 * (self.count % 2))
        return self.job_case(config, job.image, job.descriptor_address, job.threshold, stalls)


def sentence_jobs(count: int) -> Iterator[Job]:
    """Layers of MiniLM over `count` sentences."""
    return (sentence_job(ECP5, layers, number) for number, layers in enumerate(sentences(count)))


def decoding_jobs(tokens: int, steps: int, layers: int) -> Iterator[Job]:
    """byte-gpt's own heads, and pairs of them that share keys and values."""
    return (decoding_job(ECP5, byte_gpt_operands(tokens, group)[:layers], steps) for group in (1, 2))


def played(jobs: Iterator[Job], count: int) -> None:
    tool_or_skip(lambda: require_engine(Engine.VERILATOR))
    found = verify(Played(jobs), ECP5, cases=count, engine=Engine.VERILATOR)
    assert found.mismatches == 0, str(found.shown)
    assert found.cases == count
    assert found.compared["jobs under stalls of the memory"] == (count + 1) // 2


def test_sentences_and_decoding_leave_the_machine_as_the_models_say():
    def jobs() -> Iterator[Job]:
        yield from sentence_jobs(2)
        yield from decoding_jobs(tokens=40, steps=3, layers=2)

    played(jobs(), 4)


@pytest.mark.full
def test_many_sentences():
    played(sentence_jobs(20), 20)


@pytest.mark.full
@pytest.mark.parametrize("tokens", [33, 120])
def test_long_decoding_through_all_layers(tokens):
    played(decoding_jobs(tokens, steps=6, layers=5), 2)


@pytest.mark.parametrize("group", [1, 2])
def test_the_decoding_job_is_a_decoder_s_work(group):
    """The job says what it is to say: a growing cache, one query a head, a cascade within a step, rows that need LSBs."""
    job = decoding_job(ECP5, byte_gpt_operands(40, group)[:2], 3)
    golden = run(job.image, job.descriptor_address, ECP5, job.threshold)
    assert golden.error == 0
    assert [layer.descriptor.keys for layer in golden.layers] == [38, 38, 39, 39, 40, 40]
    assert [layer.keys for layer in golden.layers] == [38, 28, 39, 29, 40, 30]
    assert all(layer.row_keys.tolist() == [layer.keys] * 4 for layer in golden.layers)
    assert all(layer.fetched_survivors is None for layer in golden.layers) == (group == 2)
    repeated = sum(int(layer.result.lsb_rows.sum()) for layer in golden.layers)
    assert 0 < repeated < 4 * len(golden.layers)
    assert Flag.LAST in job.descriptors[-1].flags
