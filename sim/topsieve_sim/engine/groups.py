"""What `simulate` hands to the timing model, for those who want more than sums of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.closed_loop.loop import back_to_back
from topsieve_sim.engine.attention import Assumptions, Memo, decide, timing_group, value_selections
from topsieve_sim.engine.closed_loop import stored_tokens, token_places
from topsieve_sim.engine.program import AttentionWork, prepare
from topsieve_sim.engine.termination import told_by_rows
from topsieve_sim.timing.attention import AttentionGroup
from topsieve_sim.trace import Trace

Int64 = NDArray[np.int64]


def timed_groups(
    trace: Trace, config: AcceleratorConfig, seed: int
) -> list[tuple[AttentionWork, AttentionGroup, Int64 | None]]:
    """The attention of `trace`: descriptors, their groups, and survivors where data decided them.

    Raises
    ------
    InputError
        the trace is malformed, does not fit the machine, or keys of it end early.
    """
    work = [told_by_rows(unit, trace, config) for unit in prepare(trace).work if isinstance(unit, AttentionWork)]
    memo: Memo = {}
    decisions = [decide(unit, trace, config, memo, Assumptions()) for unit in work]
    chosen = value_selections(work, decisions, config, np.random.default_rng(seed))
    groups = [timing_group(*each, config) for each in zip(work, decisions, chosen, strict=True)]
    return [(unit, group, decided.survivors) for unit, group, decided in zip(work, groups, decisions, strict=True)]


def one_memory_cycles(trace: Trace, config: AcceleratorConfig, *, seed: int = 0) -> Int64:
    """Cycles of each attention descriptor if all of them run on one DRAM without a break, int64 [descriptors].

    `simulate` gives each descriptor an idle memory instead, so that equal ones are timed once; how far the two are apart is what
    that costs.

    Raises
    ------
    InputError
        as `timed_groups`.
    """
    tokens = prepare(trace).tokens
    pieces = [
        (group, token_places(unit, stored_tokens(unit, config, tokens), survivors))
        for unit, group, survivors in timed_groups(trace, config, seed)
    ]
    return np.array([run.times.cycles[0] for run in back_to_back(config, pieces)], np.int64)
