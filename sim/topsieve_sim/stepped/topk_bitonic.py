"""The bitonic merge sorter clock by clock."""

from __future__ import annotations

from topsieve_sim.golden.topk_latency import HEAD_FETCH, levels, popcount_ranks
from topsieve_sim.stepped.topk_select import Command, Result, SteppedSelector


class BitonicSelect(SteppedSelector):
    """Sort each row with a bitonic network, merge runs of rows pairwise at P elements a cycle, read the k-th.

    The merger compares, lane by lane, the head of one run's bank with the head of the other run's opposite bank; the
    P winners are a rotated bitonic sequence, which one half-cleaner network sorts. Heads wait in registers, so a pass
    opens with a cycle that fetches the first ones; later pairs are fetched behind the row before them.
    """

    def __init__(self, lanes: int, score_bits: int) -> None:
        super().__init__(lanes, score_bits)
        depth = levels(lanes)
        self.sort_pipe: list[tuple[bool, list[int]] | None] = [None] * (2 + depth * (depth + 1) // 2)
        self.merge_pipe: list[tuple[bool, list[int]] | None] = [None] * (1 + depth)
        self.count_pipe: list[tuple[bool, list[int]] | None] = [None] * (2 + popcount_ranks(lanes))
        self.phase = "idle"

    def _begin(self, command: Command) -> None:
        self.n, self.k = command
        self.rows_count = -(-self.n // self.lanes)
        self.quota = self.k
        self.row = 0
        self.run = 1
        self.source: list[list[int]] = []
        self.target: list[list[int]] = []
        self.phase = "sort"

    def _advance(self, rows: list[list[int]], loading: tuple[bool, list[int]] | None) -> None:
        phase = self.phase
        if phase == "open":
            self.fetching -= 1
            if self.fetching == 0:
                self.phase = "merge"
        sorted_row = self.sort_pipe.pop()
        if sorted_row is not None:
            self._written(*sorted_row)
        merged = self.merge_pipe.pop()
        if merged is not None:
            self._written(*merged)
        counted = self.count_pipe.pop()
        if counted is not None:
            last, row = counted
            self.quota -= sum(value > self.kth for value in row)
            if last:
                self.result = Result(self.kth, self.quota)
        self.sort_pipe.insert(0, self._sort(rows) if phase == "sort" else None)
        self.merge_pipe.insert(0, self._merge() if phase == "merge" else None)
        self.count_pipe.insert(0, self._count() if phase == "count" else None)

    def _written(self, last: bool, row: list[int]) -> None:
        self.target.append(sorted(row, reverse=True))
        if last:
            self.source, self.target = self.target, []
            self.row = 0
            self.first_of_pair = 0
            self.popped = ([0] * self.lanes, [0] * self.lanes)
            self.fetching = HEAD_FETCH
            self.phase = "open" if self.run < self.rows_count else "count"

    def _sort(self, rows: list[list[int]]) -> tuple[bool, list[int]]:
        row = list(rows[self.row][: self.n - self.row * self.lanes])
        row += [0] * (self.lanes - len(row))
        self.row += 1
        last = self.row == self.rows_count
        if last:
            self.phase = "drain"
        return last, row

    def _head(self, side: int, bank: int) -> int | None:
        start = self.first_of_pair + side * self.run
        end = min(start + self.run, self.rows_count)
        row = start + self.popped[side][bank]
        return self.source[row][bank] if row < end else None

    def _merge(self) -> tuple[bool, list[int]]:
        winners = []
        for lane in range(self.lanes):
            opposite = self.lanes - 1 - lane
            left, right = self._head(0, lane), self._head(1, opposite)
            if right is None or (left is not None and left >= right):
                assert left is not None
                winners.append(left)
                self.popped[0][lane] += 1
            else:
                winners.append(right)
                self.popped[1][opposite] += 1
        self.row += 1
        last = self.row == self.rows_count
        if self.row == self.first_of_pair + 2 * self.run:
            self.first_of_pair = self.row
            self.popped = ([0] * self.lanes, [0] * self.lanes)
        if last:
            self.run *= 2
            self.phase = "drain"
        return last, winners

    def _count(self) -> tuple[bool, list[int]] | None:
        wanted_row, wanted_lane = divmod(self.k - 1, self.lanes)
        if self.row == 0:
            # The first cycle reads the k-th itself.
            self.kth = self.source[wanted_row][wanted_lane]
            self.row = 1
            return None
        row = self.source[self.row - 1]
        last = self.row - 1 == wanted_row
        self.row += 1
        if last:
            self.phase = "drain"
        return last, row
