"""Register stages of the top-k engine, as functions of its parallelism P; simulator, stepped model and RTL read these.

A row read is issued in cycle t: the memory answers in t + 1, the row register holds the row in t + 2. `docs/topk-engine.md`
draws the pipelines.
"""

from __future__ import annotations

from numba import njit

# Row issue to the cycle in which the row register holds the row.
ROW_READ = 2
# From the cycle of a packet's last load beat to the first cycle in which its select command is offered.
LOAD_TO_COMMAND = 2
# From the cycle in which the selector takes a command to the first row issue of quick-select and of the bitonic sorter.
COMMAND_TO_ISSUE = 1
# Bitonic sorter: a merge pass fetches the first head of each bank into its register before it compares.
HEAD_FETCH = 1


@njit(cache=True)
def levels(parallelism: int) -> int:
    """log2 of P, rounded up: layers of a network over P lanes."""
    count = 0
    while (1 << count) < parallelism:
        count += 1
    return count


@njit(cache=True)
def network_ranks(parallelism: int) -> int:
    """Registered ranks of a log-depth network over P lanes, two layers a rank, at least one."""
    return max(1, (levels(parallelism) + 1) // 2)


@njit(cache=True)
def popcount_ranks(parallelism: int) -> int:
    """Registered ranks of a population count over P lanes."""
    return 1 if parallelism <= 16 else 2


@njit(cache=True)
def zero_eliminator_stages(parallelism: int) -> int:
    """Ranks of the prefix count, then ranks of the shift layers."""
    return 2 * network_ranks(parallelism)


@njit(cache=True)
def packer_stages(parallelism: int) -> int:
    """Ranks of the rotation that lines a compacted row up with the partial row before it."""
    return network_ranks(parallelism)


@njit(cache=True)
def quick_decide(parallelism: int) -> int:
    """Quick-select: issue of a round's last row to the first issue of the next round, or to the result."""
    # Row register, comparison, population count, decision.
    return ROW_READ + 2 + popcount_ranks(parallelism)


@njit(cache=True)
def quick_write(parallelism: int) -> int:
    """Quick-select: issue of a row to the first issue that can read what it became in a partition's memory."""
    return ROW_READ + 1 + zero_eliminator_stages(parallelism) + packer_stages(parallelism) + 1


@njit(cache=True)
def radix_first(parallelism: int) -> int:
    """Radix select: command to the cycle in which the first digit is known."""
    return 3 + popcount_ranks(parallelism)


@njit(cache=True)
def radix_decide(parallelism: int) -> int:
    """Radix select: issue of a pass's last row to the cycle in which its digit is known."""
    # Row register, digit comparison, population count, accumulator, rank comparison, digit.
    return ROW_READ + 4 + popcount_ranks(parallelism)


@njit(cache=True)
def filter_stages(parallelism: int) -> int:
    """Filter: issue of a row to the write of its survivors into the output FIFO."""
    # Row register, comparison, prefix count of the ties, tie quota, compaction, packing.
    return (
        ROW_READ + 1 + network_ranks(parallelism) + 1 + zero_eliminator_stages(parallelism) + packer_stages(parallelism)
    )


@njit(cache=True)
def output_fifo_depth(parallelism: int) -> int:
    """Slots of the output FIFO: enough that a sink that never stalls never stalls the filter."""
    return filter_stages(parallelism) + 3
