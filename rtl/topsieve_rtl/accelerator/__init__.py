"""The whole machine and its control; `docs/accelerator.md` is the contract."""

from topsieve_rtl.accelerator.accelerator import Accelerator
from topsieve_rtl.accelerator.cascade import CascadeUnit
from topsieve_rtl.accelerator.sequencer import Sequencer
from topsieve_rtl.accelerator.writer import RowWriter

__all__ = ["Accelerator", "CascadeUnit", "RowWriter", "Sequencer"]
