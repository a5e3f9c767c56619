"""The zero eliminator in time: a credit pipeline of one beat per cycle at every width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.golden.topk_latency import zero_eliminator_stages
from topsieve_sim.timing.pipeline import pipeline_times


def zero_eliminator_shape(lanes: int) -> tuple[int, int]:
    """Latency in cycles and output FIFO depth of a zero eliminator over `lanes` lanes."""
    latency_cycles = zero_eliminator_stages(lanes) + 1
    return latency_cycles, latency_cycles + 1


def zero_eliminator_times(
    arrival: NDArray[np.int64], ready: NDArray[np.bool_], lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycles at which each beat crosses the input and the output; see `timing.pipeline.pipeline_times`."""
    latency_cycles, depth = zero_eliminator_shape(lanes)
    return pipeline_times(arrival, ready, latency_cycles, depth, 1)
