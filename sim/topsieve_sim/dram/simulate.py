"""`simulate_requests`: a whole trace at once."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.result import DramResult
from topsieve_sim.dram.simulator import DramSimulator
from topsieve_sim.errors import InputError


def simulate_requests(
    config: DramConfig,
    addresses: ArrayLike,
    is_write: ArrayLike = False,
    arrival_cycles: ArrayLike = 0,
    *,
    mode: Literal["fifo", "inorder"] = "fifo",
    record_commands: bool = False,
) -> DramResult:
    """Simulate a trace from cycle 0 to the completion of its last request.

    Parameters
    ----------
    config : the memory.
    addresses : int [n], byte addresses, one access each (`split_into_accesses` cuts longer pieces).
    is_write : bool [n] or one bool.
    arrival_cycles : int [n] or one int, cycle from which a request may be accepted.
    mode : `fifo`, every channel accepts its own requests in order, one per cycle and channel; `inorder`, one queue for
        all channels with head-of-line blocking, one request per cycle.
    record_commands : also return the command stream.

    Raises
    ------
    InputError
        an address outside the memory, a shape that does not fit, a negative cycle, an unknown mode.
    """
    simulator = DramSimulator(config, record_commands=record_commands)
    if mode == "fifo":
        simulator.submit(addresses, is_write, arrival_cycles)
    elif mode == "inorder":
        simulator.submit_in_order(addresses, is_write, arrival_cycles)
    else:
        raise InputError("unknown injection mode", field="mode", value=mode, allowed="fifo, inorder")
    cycles = simulator.finish()
    return DramResult(
        config=config,
        accept_cycles=simulator.accept_cycles(),
        complete_cycles=simulator.complete_cycles(),
        cycles=cycles,
        counters=simulator.counters(),
        energy=simulator.energy(),
        commands=simulator.command_stream() if record_commands else None,
    )
