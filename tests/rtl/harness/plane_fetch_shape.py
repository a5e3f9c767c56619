"""The plane fetcher of the AXI bench, known on both sides of the simulator."""

from __future__ import annotations

from topsieve_sim.golden.plane_fetch import PlaneFetchShape

SHAPE = PlaneFetchShape(
    4, (6, 4, 12), 64, address_bits=16, id_bits=3, max_burst_words=8, max_outstanding=3, buffer_words=16, merge_bytes=96
)
