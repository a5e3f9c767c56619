# amaranth: UnusedElaboratable=no
"""The cascade unit: live list, live heads, report and cycles of every command, against golden models and times."""

from __future__ import annotations

import numpy as np
import pytest

from rtl.harness import engine_or_skip
from rtl.harness.cascade_unit import CascadeBench, Session
from topsieve_rtl.accelerator.cascade import CascadeOperation, CascadeUnit
from topsieve_rtl.cosim import Design, Engine, run
from topsieve_rtl.formal import combinational_paths
from topsieve_sim.arch import AcceleratorConfig, load_config

TINY = load_config("tiny")
TOKENS = (CascadeOperation.RESET_TOKENS, CascadeOperation.PRUNE_TOKENS)


def machine(
    selector: str, lanes: int, parallelism: int, capacity: int, heads: int, **formats: int
) -> AcceleratorConfig:
    fields = TINY.model_dump()
    fields["capacity"] = capacity
    fields["softmax"]["lanes"] = lanes
    fields["topk"] |= {"selector": selector, "parallelism": parallelism}
    fields["importance"]["heads"] = heads
    fields["formats"] |= formats
    return AcceleratorConfig.model_validate(fields)


MACHINES = {
    "quick, narrow beats": machine("quick", 2, 4, 33, 5),
    "radix, wide beats": machine("radix", 8, 2, 40, 9, token_importance_bits=12, head_importance_bits=20),
    "bitonic": machine("bitonic", 4, 4, 30, 4, token_importance_bits=20, head_importance_bits=12),
    "one lane": machine("quick", 1, 1, 9, 3),
}


def draw(config: AcceleratorConfig, generator: np.random.Generator) -> Session:
    ready = (generator.random(600) < generator.choice([0.3, 0.8, 1.0])).tolist()
    session = Session(config, int(generator.integers(1 << 32)), ready)
    session.command(CascadeOperation.RESET_TOKENS, int(generator.integers(1, config.capacity + 1)))
    session.command(CascadeOperation.RESET_HEADS, int(generator.integers(1, config.importance.heads + 1)))
    for _ in range(int(generator.integers(1, 6))):
        session.add(generator, int(generator.integers(0, 40)))
        for operation in generator.permutation(list(CascadeOperation)[3:])[: generator.integers(1, 4)]:
            count = len(session.live) if operation is CascadeOperation.PRUNE_TOKENS else int(session.alive.sum())
            session.command(operation, int(generator.integers(1, count + 2)))
        if generator.random() < 0.3:
            session.command(CascadeOperation.CLEAR)
        if generator.random() < 0.3:
            session.command(CascadeOperation.RESET_TOKENS, int(generator.integers(1, config.capacity + 1)))
    session.command(CascadeOperation.REPORT)
    session.command(CascadeOperation.CLEAR)
    return session


def check(config: AcceleratorConfig, cases: int, engine: Engine, seed: int = 0) -> None:
    sessions = [draw(config, np.random.default_rng([seed, number])) for number in range(cases)]
    design = Design(CascadeBench(config), "cascade")
    for session, log in zip(sessions, run(design, [session.case() for session in sessions], engine), strict=True):
        for name, expected in session.channels.items():
            got = log.channels[name]
            if name in ("record", "written"):
                assert got.beats == [tuple(beat) for beat in expected.beats], name
            cycles = [(ours, theirs) for ours, theirs in zip(got.cycles, expected.cycles, strict=True)]
            assert [ours for ours, theirs in cycles if theirs is not None] == [
                theirs for _, theirs in cycles if theirs is not None
            ], name
        assert log.finished
        assert log.status["live_tokens"] == len(session.live)
        assert log.status["live_heads"] == session.alive.sum()
        assert log.status["alive"] == sum(1 << int(head) for head in np.flatnonzero(session.alive))


@pytest.mark.parametrize("name", MACHINES)
def test_every_command_takes_its_cycles_and_leaves_its_state(name):
    check(MACHINES[name], 40, engine_or_skip(Engine.CXXRTL))


@pytest.mark.full
@pytest.mark.parametrize("name", MACHINES)
def test_every_command_at_length(name):
    check(MACHINES[name], 600, engine_or_skip(Engine.CXXRTL), seed=1)


def test_only_the_count_of_repeated_rows_reaches_a_port_without_a_register():
    assert combinational_paths(CascadeUnit(MACHINES["one lane"])) == [("repeated", "record__payload")]
