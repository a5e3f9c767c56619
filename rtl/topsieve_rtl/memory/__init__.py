"""The way to memory: the plane fetcher and its AXI4 read port."""

from topsieve_rtl.memory.axi import ReadAddress, ReadData, connect_read_port, read_port_members
from topsieve_rtl.memory.plane_fetcher import AxiPlaneFetcher, PlaneFetcher

__all__ = ["AxiPlaneFetcher", "PlaneFetcher", "ReadAddress", "ReadData", "connect_read_port", "read_port_members"]
