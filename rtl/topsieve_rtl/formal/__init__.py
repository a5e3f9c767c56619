"""Formal proofs: stream properties and the solver that proves them."""

from topsieve_rtl.formal.paths import combinational_paths
from topsieve_rtl.formal.prove import Mode, ProofError, prove
from topsieve_rtl.formal.streams import OrderCheck, assert_stream, assume_stream, never_starves

__all__ = [
    "Mode",
    "OrderCheck",
    "ProofError",
    "assert_stream",
    "assume_stream",
    "combinational_paths",
    "never_starves",
    "prove",
]
