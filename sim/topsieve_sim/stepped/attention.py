"""The attention unit clock by clock: the stepped units wired together, driven by an issuer and a fetch sequencer.

Beats carry names, not numbers, except inside the top-k engine: which rows are repeated is an input, as it is for
`topsieve_sim.timing.attention`, whose every event this model defines. A beat is `(row, second_pass, index, last)`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import KeyValuePlane, QueryPlane, key_value_fetch_shape, query_fetch_shape
from topsieve_sim.golden.attention_latency import attention_latencies, beats
from topsieve_sim.golden.plane_fetch import FetchCommand
from topsieve_sim.stepped.delay import Delay
from topsieve_sim.stepped.fetched_memory import FetchedMemory, FetchRequest
from topsieve_sim.stepped.group import SteppedGroup
from topsieve_sim.stepped.memory import Buffer, IdealMemory, Request
from topsieve_sim.stepped.pipeline import CreditPipeline
from topsieve_sim.stepped.selection import Selection
from topsieve_sim.stepped.softmax import RowOutcome, ScoreBeat, SoftmaxUnit
from topsieve_sim.stepped.weighted_sum import WeightedSumArray
from topsieve_sim.timing.attention import NEVER_STALLS, AttentionGroup, PortStalls

Beat = tuple[int, bool, int, bool]

_PLANES = {"key": KeyValuePlane.KEY_MSB, "lsb": KeyValuePlane.KEY_LSB, "value": KeyValuePlane.VALUE}


def _lists(stalls: PortStalls) -> tuple[list[int], list[int]]:
    return stalls.delay.tolist(), stalls.gap.tolist()


class SteppedAttention(SteppedGroup):
    """One attention group on one machine; `run` returns a line of events for each started row, in start order.

    `row_scores` are the probabilities that the top-k engine selects from, row by row; needed where `kept` < `keys`.
    `operand_stalls` and `query_stalls` are how the memories behind the fetchers delay and space their words, on a machine
    that has fetchers.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        group: AttentionGroup,
        row_scores: Sequence[Sequence[int]] = (),
        operand_stalls: PortStalls = NEVER_STALLS,
        query_stalls: PortStalls = NEVER_STALLS,
    ) -> None:
        shape = group.shape(config)
        interval, weighted_interval, head_dim, progressive = shape[0], shape[1], shape[6], shape[12]
        operand_banks = shape[13]
        self.group = group
        self.cycles = cycles = attention_latencies(config)
        self.row_bits = {"key": head_dim * shape[8], "lsb": head_dim * shape[9], "value": head_dim * shape[10]}
        self.progressive = bool(progressive)
        self.rows = group.heads * group.queries
        self.row_keys = np.broadcast_to(group.keys if group.row_keys is None else group.row_keys, self.rows).tolist()
        self.flags = np.broadcast_to(group.lsb_flags, self.rows).tolist()
        self.selects = group.kept < group.keys
        self.gathers = self.selects and group.queries == 1

        self.scores = CreditPipeline(
            lambda beat: beat, cycles.dot_product + interval - 1, cycles.dot_product_depth, interval
        )
        self.softmax = SoftmaxUnit(cycles, self._outcome)
        self.selection = Selection(config, row_scores, group.kept, self._survivor_beats)
        self.weighted = WeightedSumArray(cycles, weighted_interval, lambda row: row[0])
        self.memory = IdealMemory(cycles.lanes, config.memory.bytes_per_cycle, config.memory.latency_cycles)
        self.queries: FetchedMemory | None = None
        self.key_requests = ["key"]
        self.query_ready = query_stalls.ready
        if config.memory.has_fetchers:
            self.places = group.addresses(config)
            latency = config.memory.latency_cycles
            self.memory = FetchedMemory(key_value_fetch_shape(config), cycles.lanes, latency, *_lists(operand_stalls))
            self.queries = FetchedMemory(query_fetch_shape(config), 1, latency, *_lists(query_stalls))
            # Whole keys at once are two planes for a fetcher.
            if not progressive and config.formats.key_lsb_bits > 0:
                self.key_requests.append("lsb")
        self.head_dim = head_dim
        self.chosen: tuple[int, bool] | None = None
        self.query_of: dict[tuple[int, bool], Buffer] = {}

        self.issue: deque[tuple[int, bool]] = deque()
        self.issue_beat = 0
        self.next_row = 0
        self.again: deque[int] = deque()
        self.product_done = Delay(interval)
        self.weighted_done = Delay(weighted_interval)

        self.buffers: dict[tuple[str, int], Buffer] = {}
        self.value_credits = operand_banks
        self.left_in_head = [group.queries] * group.heads
        self.weighted_in_head = [group.queries] * group.heads
        # Requests in program order: kind, head, and the head whose value bank is taken over (-1: an empty bank).
        self.requests: deque[tuple[str, int, int]] = deque()
        self.next_loaded = 0
        for _ in range(min(operand_banks, group.heads)):
            self.requests.extend((kind, self.next_loaded, -1) for kind in self.key_requests)
            if not self.gathers:
                self.requests.append(("value", self.next_loaded, -1))
            self.next_loaded += 1

        self.total_cycles = 0
        self.unit_cycles = {unit: Counter[str]() for unit in ("memory", "dot_product", "weighted_sum")}
        self.log: list[dict[str, int]] = []
        self.line: dict[tuple[int, bool], dict[str, int]] = {}

    def _clock(self, cycle: int, memory_ready: bool, output_ready: bool) -> bool:
        """One cycle; whether an output row left."""
        # What crosses each interface, from the state before the edge.
        picked = self._pick()
        query = self._query(picked)
        if self.queries is not None and query is None:
            picked = None
        request = self._request()
        product = self._product()
        score = self.scores.offer() if self.softmax.accepts() else None
        offered = self.softmax.offer()
        probability = offered if self.selection.accepts() or not self.selects else None
        weighted = self.selection.offer() if self.selects else probability
        if weighted is not None and not (self.weighted.accepts() and self._values_ready(weighted)):
            weighted = None
        if not self.selects:
            probability = weighted
        output = self.weighted.offer() if output_ready else None
        self._observe(memory_ready, product, self.selection.offer() if self.selects else offered, weighted)

        # The edge.
        self.scores.tick(product, score is not None)
        self.softmax.tick(score, probability is not None)
        self.selection.tick(probability if self.selects else None, self.selects and weighted is not None)
        self.weighted.tick(None if weighted is None else (weighted, weighted[3]), output is not None)
        self._tick_memories(cycle, memory_ready, None if request is None else request[1], query)
        if request is not None:
            self.requests.popleft()
            self.buffers[request[0]] = request[1].target
        self._step_issue(picked, product)
        self._step_releases(product, weighted)

        self._record(cycle, picked, product, score, probability, weighted, output)
        return output is not None

    def _observe(
        self, memory_ready: bool, product: ScoreBeat | None, waiting: Beat | None, weighted: Beat | None
    ) -> None:
        """What each of three units did in this cycle, or what it missed; a fetcher says itself what it did."""
        if isinstance(self.memory, IdealMemory):
            self.unit_cycles["memory"][
                "waiting_for_input" if self.memory.accepts else "busy" if memory_ready else "waiting_for_memory"
            ] += 1
        cause = "back_pressure"
        if product is not None or self.scores.busy:
            cause = "busy"
        elif not self.issue:
            cause = "waiting_for_input"
        elif not self._keys_ready():
            cause = "waiting_for_memory"
        self.unit_cycles["dot_product"][cause] += 1
        cause = "back_pressure"
        if weighted is not None or self.weighted.busy:
            cause = "busy"
        elif waiting is None:
            cause = "waiting_for_input"
        elif not self._values_ready(waiting):
            cause = "waiting_for_memory"
        self.unit_cycles["weighted_sum"][cause] += 1

    def _outcome(self, row: Sequence[ScoreBeat]) -> RowOutcome:
        name, second = row[0].row, row[0].second_pass
        return RowOutcome(name, [beat.payload for beat in row], self.flags[name] and not second)

    def _survivor_beats(self, row: int) -> int:
        kept = min(self.group.kept, self.row_keys[row]) if self.gathers else self.row_keys[row]
        return beats(kept, self.cycles.lanes)

    def _pick(self) -> tuple[int, bool] | None:
        """The row that enters the issue queue: a repeated one before a new one whose keys have been asked for."""
        if self.chosen is not None:
            return self.chosen
        if len(self.issue) == self.cycles.issue_rows:
            return None
        if self.again:
            return self.again[0], True
        if self.next_row < self.rows and ("key", self.next_row // self.group.queries) in self.buffers:
            return self.next_row, False
        return None

    def _query(self, picked: tuple[int, bool] | None) -> FetchRequest | None:
        """The query command that crosses; a row that it waits for stays the chosen one."""
        if self.queries is None or picked is None:
            return None
        self.chosen = picked
        if not self.queries.accepts:
            return None
        self.chosen = None
        self.query_of[picked] = Buffer()
        command = FetchCommand(int(self.places.query[picked[0]]), 0, 1, self.head_dim, QueryPlane.QUERY, 0)
        return FetchRequest(self.query_of[picked], command)

    def _product(self) -> ScoreBeat | None:
        """The beat the dot-product array starts: its keys, and for a second pass their LSB plane, must be there."""
        if not self.issue or not self.scores.accepts() or not self._keys_ready():
            return None
        row, second = self.issue[0]
        last = self.issue_beat == beats(self.row_keys[row], self.cycles.lanes) - 1
        return ScoreBeat((row, second, self.issue_beat, last), row, last, second)

    def _keys_ready(self) -> bool:
        row, second = self.issue[0]
        if self.queries is not None and self.query_of[row, second].beats_ready == 0:
            return False
        head = row // self.group.queries
        planes = [self.buffers.get((kind, head)) for kind in (("key", "lsb") if second else self.key_requests)]
        return all(plane is not None and plane.beats_ready > self.issue_beat for plane in planes)

    def _values_ready(self, beat: Beat) -> bool:
        buffer = self.buffers.get(("value", beat[0] // self.group.queries))
        return buffer is not None and buffer.beats_ready > beat[2]

    def _request(self) -> tuple[tuple[str, int], Request | FetchRequest] | None:
        """The next request of the program, if it can be picked in this cycle."""
        if not self.memory.accepts or not self.requests:
            return None
        kind, head, owner = self.requests[0]
        rows = self.group.keys
        if kind == "value" and self.gathers:
            if head not in self.selection.finished_rows or self.value_credits == 0:
                return None
            self.value_credits -= 1
            rows = min(self.group.kept, self.row_keys[head])
        elif kind == "value" and owner >= 0 and self.weighted_in_head[owner] > 0:
            return None
        if isinstance(self.memory, IdealMemory):
            return (kind, head), Request(Buffer(), rows, self.row_bits[kind])
        return (kind, head), self._fetch(kind, head, rows)

    def _fetch(self, kind: str, head: int, rows: int) -> FetchRequest:
        plane = _PLANES[kind]
        gather, indices = self.places.gather, self.places.tokens
        if plane == KeyValuePlane.VALUE and self.gathers:
            gather, indices = True, self.places.survivors[head, :rows]
        base, stride = int(self.places.head[plane, head]), int(self.places.stride[plane])
        command = FetchCommand(base, stride, rows, self.head_dim, plane, int(gather))
        return FetchRequest(Buffer(), command, indices.tolist() if gather else ())

    def _tick_memories(
        self, cycle: int, ready: bool, request: Request | FetchRequest | None, query: FetchRequest | None
    ) -> None:
        if isinstance(self.memory, IdealMemory):
            assert not isinstance(request, FetchRequest)
            self.memory.tick(ready, request)
            return
        assert not isinstance(request, Request)
        self.memory.tick(ready, request)
        self.unit_cycles["memory"][self.memory.cause] += 1
        if self.queries is not None:
            self.queries.tick(bool(self.query_ready[cycle]) if cycle < len(self.query_ready) else True, query)

    def _step_issue(self, picked: tuple[int, bool] | None, product: ScoreBeat | None) -> None:
        if product is not None:
            self.issue_beat += 1
            if product.last:
                self.issue.popleft()
                self.issue_beat = 0
        if picked is not None:
            self.issue.append(picked)
            if picked[1]:
                self.again.popleft()
            else:
                self.next_row += 1

    def _step_releases(self, product: ScoreBeat | None, weighted: Beat | None) -> None:
        """Decisions and finished operand reads, visible from the next cycle on."""
        for row, dropped in self.softmax.decisions:
            head = row // self.group.queries
            if dropped:
                self.again.append(row)
                if ("lsb", head, -1) not in self.requests and ("lsb", head) not in self.buffers:
                    self.requests.append(("lsb", head, -1))
            elif self.progressive:
                self._release(head)
        self.softmax.decisions.clear()
        done = self.product_done.tick(product if product is not None and product.last else None)
        if done is not None and not self.progressive:
            self._release(done.row // self.group.queries)
        read = self.weighted_done.tick(weighted if weighted is not None and weighted[3] else None)
        if read is not None:
            self.weighted_in_head[read[0] // self.group.queries] -= 1
            self.value_credits += 1

    def _release(self, head: int) -> None:
        """A row needs its head's keys no more: after the last, the next head's keys are asked for, then values."""
        self.left_in_head[head] -= 1
        loads = self.left_in_head[head] == 0 and self.next_loaded < self.group.heads
        if loads:
            self.requests.extend((kind, self.next_loaded, -1) for kind in self.key_requests)
        if self.gathers:
            self.requests.append(("value", head, -1))
        elif loads:
            self.requests.append(("value", self.next_loaded, head))
        self.next_loaded += loads

    def _record(
        self,
        cycle: int,
        picked: tuple[int, bool] | None,
        product: ScoreBeat | None,
        score: ScoreBeat | None,
        probability: Beat | None,
        weighted: Beat | None,
        output: Beat | None,
    ) -> None:
        if picked is not None:
            line = {"row": picked[0], "second_pass": int(picked[1]), "pick": cycle}
            self.log.append(line)
            self.line[picked] = line
        if product is not None:
            line = self.line[product.row, product.second_pass]
            line.setdefault("first_product", cycle)
            line["last_product"] = cycle
        if score is not None:
            self.line[score.row, score.second_pass]["filled"] = cycle
        if probability is not None:
            line = self.line[probability[:2]]
            line.setdefault("first_probability", cycle)
            line["last_probability"] = cycle
        if weighted is not None:
            self.line[weighted[:2]]["last_weighted"] = cycle
        if output is not None:
            self.line[output[:2]]["left"] = cycle
