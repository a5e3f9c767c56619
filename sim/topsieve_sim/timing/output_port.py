"""Who takes the attention unit's output rows: a pattern, or the row writer as it goes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.golden.row_write import RowWriteShape
from topsieve_sim.timing.row_writer import RowWriter, row_writer


class OutputPort(NamedTuple):
    """Who takes the output rows: with `writes` the writer as it goes, otherwise a pattern, bool [cycles]."""

    writes: bool
    ready: NDArray[np.bool_]
    writer: RowWriter


def pattern_output(ready: NDArray[np.bool_]) -> OutputPort:
    """Ready in the cycles of a pattern, and always beyond its end."""
    return OutputPort(False, ready, row_writer(RowWriteShape(8)))


def writer_output(writer: RowWriter) -> OutputPort:
    """The row writer."""
    return OutputPort(True, np.zeros(0, np.bool_), writer)
