"""The successor's features one by one and on top of each other, over the published machine: `topsieve ladder`."""

from topsieve_sim.ladder.climb import Ladder, Rung, Step, climb
from topsieve_sim.ladder.document import as_json, markdown
from topsieve_sim.ladder.features import FEATURES, IN_LOOP, Feature
from topsieve_sim.ladder.workloads import LOOP_WORKLOADS, WORKLOADS, Workload

__all__ = [
    "FEATURES",
    "IN_LOOP",
    "LOOP_WORKLOADS",
    "WORKLOADS",
    "Feature",
    "Ladder",
    "Rung",
    "Step",
    "Workload",
    "as_json",
    "climb",
    "markdown",
]
