"""Golden model of the progressive decision: is the first pass, on MSB planes, sure enough?

Source: specification `accelerator`, section 1.4 (SpAtten III-D).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.numbers import Integers


def integer_threshold(threshold: float, formats: NumberFormats) -> int:
    """The threshold in probability steps, round half to even; 1.0 is 2^probability_bits, which no probability reaches."""
    return int(np.rint(threshold * (1 << formats.probability_bits)))


def config_threshold(config: AcceleratorConfig) -> int:
    """The integer threshold of a machine: 0 (never a second pass) without progressive quantisation or an LSB plane."""
    if not config.progressive.enabled or config.formats.key_lsb_bits == 0:
        return 0
    return integer_threshold(config.progressive.threshold, config.formats)


def needs_lsb(largest: Integers, threshold: int) -> NDArray[np.bool_]:
    """Rows whose largest probability is under the integer threshold; they are computed once more with whole keys."""
    return largest < threshold
