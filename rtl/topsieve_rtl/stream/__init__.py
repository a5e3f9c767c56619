"""Streams of the accelerator: beat layouts, the FIFO and the credit pipeline.

Rules of every stream port, on top of the four transfer rules of `amaranth.lib.stream`:

* `valid`, `payload` and `ready` are functions of registered state alone; no combinational path joins two ports.
* Valid lanes of a beat come first; only the last beat of a packet may be partial; an empty packet is one beat with
  `count` 0 and `last`.
"""

from topsieve_rtl.stream.collisions import NEVER_READ_WHILE_WRITTEN
from topsieve_rtl.stream.fifo import Fifo, Storage
from topsieve_rtl.stream.layouts import Beat, Element
from topsieve_rtl.stream.pipeline import CreditPipeline, Datapath

__all__ = ["NEVER_READ_WHILE_WRITTEN", "Beat", "CreditPipeline", "Datapath", "Element", "Fifo", "Storage"]
