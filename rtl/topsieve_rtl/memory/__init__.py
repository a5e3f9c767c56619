"""The way to memory: the plane fetcher, and the AXI4 read and write ports."""

from topsieve_rtl.memory.axi import (
    BurstAddress,
    ReadAddress,
    ReadData,
    WriteAddress,
    WriteData,
    WriteResponse,
    connect_read_port,
    connect_write_port,
    read_port_members,
    write_port_members,
)
from topsieve_rtl.memory.plane_fetcher import AxiPlaneFetcher, PlaneFetcher

__all__ = [
    "AxiPlaneFetcher",
    "BurstAddress",
    "PlaneFetcher",
    "ReadAddress",
    "ReadData",
    "WriteAddress",
    "WriteData",
    "WriteResponse",
    "connect_read_port",
    "connect_write_port",
    "read_port_members",
    "write_port_members",
]
