"""Fetchers in closed loop with the DRAM model: layouts, request ports, address crossbar, and the fixed point of both."""
