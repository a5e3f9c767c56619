# amaranth: UnusedElaboratable=no
"""The whole machine: memory to the bit, cycles and every counter, errors and what comes after them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from rtl.harness.accelerator_bench import Job, Outcome, draw_stalls, run_machine
from rtl.harness.attention_machines import draw_machine
from rtl.harness.bus_bench import run_bus_bench
from topsieve_rtl.accelerator import Accelerator
from topsieve_rtl.csr import report_counters
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.units.accelerator_jobs import DrawnJob, draw_job
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.accelerator import AcceleratorRun, MachineState, RunError, run
from topsieve_sim.timing.accelerator import accelerator_times

TINY = load_config("tiny")


def expected_counters(config: AcceleratorConfig, golden: AcceleratorRun, job: Job) -> dict[str, int]:
    """The counters after the job, named as in the register map."""
    return report_counters(accelerator_times(config, golden, job.stalls))


def check(config: AcceleratorConfig, jobs: list[Job], outcomes: list[Outcome]) -> None:
    """Every job against the golden machine, which keeps its state from job to job as the hardware does."""
    state: MachineState | None = None
    for job, outcome in zip(jobs, outcomes, strict=True):
        golden = run(job.image, job.descriptor, config, job.threshold, state)
        state = golden.state
        assert (outcome.done, outcome.error) == (int(golden.error == RunError.NONE), golden.error)
        assert outcome.image == golden.memory
        assert_counters(config, golden, job, outcome)


def assert_counters(config: AcceleratorConfig, golden: AcceleratorRun, job: Job, outcome: Outcome) -> None:
    expected = expected_counters(config, golden, job)
    assert len(outcome.counters) == (len(expected) if job.every_counter else 1)
    assert outcome.counters == {name: expected[name] for name in outcome.counters}


def jobs_of(drawn: list[DrawnJob], chance: float, seed: int) -> list[Job]:
    generator = np.random.default_rng(seed)
    return [Job(job.image, 0, job.threshold, draw_stalls(generator, chance)) for job in drawn]


def draw_axi_machine(seed: int) -> AcceleratorConfig:
    """A small machine with ports of its own."""
    for number in range(seed * 1000, seed * 1000 + 1000):
        generator = np.random.default_rng(number)
        fields = draw_machine(number).model_dump()
        fields["topk"]["parallelism"] = int(generator.choice([1, 2, 4, 8]))
        fields["topk"]["selector"] = str(generator.choice(["quick", "radix", "bitonic"]))
        fields["weighted_sum"]["lane_split"] = fields["dot_product"]["lane_split"]
        burst = int(generator.choice([1, 2, 4, 16]))
        fields["memory"] |= {
            "model": "axi",
            "beat_bytes": int(generator.choice([1, 2, 4, 8, 16])),
            "latency_cycles": int(generator.integers(1, 12)),
            "axi": {
                "burst_words": burst,
                "outstanding": int(generator.integers(1, 5)),
                "buffer_words": burst + int(generator.integers(0, 20)),
                "merge_bytes": int(generator.choice([0, 16, 64])),
                "address_bits": int(generator.integers(16, 33)),
            },
        }
        try:
            return AcceleratorConfig.model_validate(fields)
        except ValidationError:
            continue
    raise AssertionError("no machine")


def test_memory_cycles_and_counters_of_jobs():
    drawn = [draw_job(TINY, np.random.default_rng([1, number]), 2, 7, 2) for number in range(2)]
    jobs = jobs_of(drawn, 0.0, 0)
    check(TINY, jobs, run_machine(TINY, jobs))


def test_the_same_under_stalls_of_every_channel():
    jobs = jobs_of([draw_job(TINY, np.random.default_rng([2, 0]), 2, 6, 2)], 0.3, 1)
    check(TINY, jobs, run_machine(TINY, jobs))


def test_errors_end_a_job_and_the_next_one_is_as_good_as_any():
    generator = np.random.default_rng(3)
    good = draw_job(TINY, generator, 1, 4, 1)
    beyond = len(good.image) + 64
    failing = [
        good.replace(0, head_dim=TINY.max_head_dim + 1),
        good.replace(0, factors=beyond),
        good.replace(0, query=beyond),
        good.replace(0, output=beyond // 4 * 4),
        good,
    ]
    jobs = [dataclasses.replace(job, every_counter=False) for job in jobs_of(failing, 0.0, 0)]
    outcomes = run_machine(TINY, jobs)
    assert [outcome.error for outcome in outcomes] == [1, 2, 2, 3, 0]
    check(TINY, jobs, outcomes)


def test_an_unreadable_descriptor_and_answers_that_fail():
    good = draw_job(TINY, np.random.default_rng(4), 1, 4, 1)
    (job,) = jobs_of([good], 0.0, 0)
    job = dataclasses.replace(job, every_counter=False)
    layer = good.descriptors[0]
    jobs = [
        dataclasses.replace(job, descriptor=len(good.image) // 128 * 128 + 128),
        dataclasses.replace(job, read_fails=lambda address: address == layer.value // 4 * 4),
        dataclasses.replace(job, write_fails=lambda address: address == layer.output),
        job,
    ]
    outcomes = run_machine(TINY, jobs)
    assert [outcome.error for outcome in outcomes] == [2, 2, 3, 0]
    assert [outcome.done for outcome in outcomes] == [0, 0, 0, 1]
    assert outcomes[0].image == bytes(good.image)
    golden = run(good.image, 0, TINY, good.threshold)
    for outcome in outcomes[1:]:
        # A response does not change what was read or written.
        assert outcome.image == golden.memory
        assert_counters(TINY, golden, job, outcome)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(8))
def test_drawn_machines(seed):
    config = draw_axi_machine(seed)
    generator = np.random.default_rng(seed)
    tokens = min(config.capacity, 12)
    drawn = [draw_job(config, generator, int(generator.integers(1, 5)), tokens) for _ in range(4)]
    jobs = jobs_of(drawn, float(generator.choice([0.0, 0.1, 0.5])), seed)
    check(config, jobs, run_machine(config, jobs))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_long_jobs(seed):
    generator = np.random.default_rng([5, seed])
    drawn = [draw_job(TINY, generator, 4, TINY.capacity, 12) for _ in range(2)]
    jobs = jobs_of(drawn, 0.2 * (seed % 2), seed)
    check(TINY, jobs, run_machine(TINY, jobs))


def test_the_driver_runs_a_job_between_bus_models():
    run_bus_bench(Accelerator(TINY), "topsieve_accelerator", "rtl.harness.accelerator_cocotb_bench")


@pytest.mark.full
def test_no_port_reaches_another_without_a_register():
    assert combinational_paths(Accelerator(TINY)) == []
