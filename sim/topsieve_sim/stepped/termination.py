"""A decoding group whose keys end early, clock by clock: two passes a row, a bound between them, candidates moved together.

Beats carry names, not numbers: which keys are candidates is an input, as it is for `topsieve_sim.timing.termination`, whose
every event this model defines. A beat is `(row, second_pass, index, last)`.
"""

from __future__ import annotations

from collections import Counter, deque

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, beats, termination_latencies
from topsieve_sim.stepped.delay import Delay
from topsieve_sim.stepped.group import SteppedGroup
from topsieve_sim.stepped.memory import Buffer, IdealMemory, Request
from topsieve_sim.stepped.pipeline import CreditPipeline
from topsieve_sim.stepped.softmax import RowOutcome, ScoreBeat, SoftmaxUnit
from topsieve_sim.stepped.weighted_sum import WeightedSumArray
from topsieve_sim.timing.termination_group import TerminationGroup

Beat = tuple[int, bool, int, bool]


class SteppedTermination(SteppedGroup):
    """One group on one machine; `run` returns a line of events for each pass of each row, in start order."""

    def __init__(self, config: AcceleratorConfig, group: TerminationGroup) -> None:
        self.group = group
        self.shape = shape = group.shape(config)
        self.cycles = cycles = attention_latencies(config)
        unit = termination_latencies(config)
        self.rows = shape.heads * shape.queries
        lanes = cycles.lanes
        self.first_beats = beats(shape.keys, lanes)
        self.tile_beats = [
            min(shape.tile_beats, self.first_beats - begin) for begin in range(0, self.first_beats, shape.tile_beats)
        ]
        self.wanted = group.candidates.tolist()
        self.second_beats = [sum(beats(count, lanes) for count in tiles) for tiles in self.wanted]
        self.whole = [bool(flag) and shape.key_lsb_bits > 0 for flag in group.whole]
        self.row_bits = {
            "key": shape.head_dim * shape.key_msb_bits,
            "lsb": shape.head_dim * shape.key_lsb_bits,
            "value": shape.head_dim * shape.value_bits,
        }

        interval = shape.product_interval
        self.scores = CreditPipeline(
            lambda beat: beat, cycles.dot_product + interval - 1, cycles.dot_product_depth, interval
        )
        self.softmax = SoftmaxUnit(
            cycles, lambda row: RowOutcome(row[0].row, [beat.payload for beat in row], dropped=False)
        )
        self.weighted = WeightedSumArray(cycles, shape.weighted_interval, lambda row: row[0])
        self.memory: IdealMemory = IdealMemory(lanes, config.memory.bytes_per_cycle, config.memory.latency_cycles)

        self.issue: deque[tuple[int, bool]] = deque()
        self.issue_beat = 0
        self.fresh = 0
        self.again: deque[int] = deque()
        self.partial_credits = shape.row_slots
        self.value_credits = shape.operand_banks
        self.product_done = Delay(interval)
        self.weighted_done = Delay(shape.weighted_interval)
        self.bound_delay = Delay(unit.bound)
        # Tiles that are decided, per head; the sums of a row's tiles wait to be read back in this order: (row, tile).
        self.decided = [0] * shape.heads
        self.keys_read = [0] * shape.heads
        self.compacting = deque((row, tile) for row in range(self.rows) for tile in range(len(self.tile_beats)))
        self.compacted_beats = 0
        self.compact_delay = Delay(unit.compact)

        self.buffers: dict[tuple[str, int], list[Buffer]] = {}
        # The program: (plane, head, tile); every key plane is one request.
        banks = shape.operand_banks
        self.requests: deque[tuple[str, int, int]] = deque(("key", head, 0) for head in range(min(banks, shape.heads)))
        for head in range(shape.heads):
            *early, last = (("value", head, tile) for tile in range(len(self.tile_beats)))
            program = [*early, *([("lsb", head, 0)] if self.whole[head] else []), last]
            self.requests.extend(part for part in program if part[0] == "lsb" or self.wanted[head][part[2]])
            if head + banks < shape.heads:
                self.requests.append(("key", head + banks, 0))
        self.with_operands: set[int] = set()
        self.read_rows = [0] * shape.heads

        self.total_cycles = 0
        self.unit_cycles = {unit_name: Counter[str]() for unit_name in ("memory", "dot_product", "weighted_sum")}
        self.log: list[dict[str, int]] = []
        self.line: dict[tuple[int, bool], dict[str, int]] = {}

    def _clock(self, cycle: int, memory_ready: bool, output_ready: bool) -> bool:
        """One cycle; whether an output row left."""
        # What crosses each interface, from the state before the edge.
        picked = self._pick()
        request = self._request()
        product = self._product()
        score = self.scores.offer()
        if score is not None and score.second_pass and not self.softmax.accepts():
            score = None
        waiting = self.softmax.offer()
        weighted = waiting
        if weighted is not None and not (self.weighted.accepts() and self._values_ready(weighted)):
            weighted = None
        output = self.weighted.offer() if output_ready else None
        compacted = self._compact()
        self._observe(memory_ready, product, waiting, weighted)

        # The edge.
        self.scores.tick(product, score is not None)
        self.softmax.tick(score if score is not None and score.second_pass else None, weighted is not None)
        self.softmax.decisions.clear()
        self.weighted.tick(None if weighted is None else (weighted, weighted[3]), output is not None)
        self.memory.tick(memory_ready, None if request is None else request[1])
        if request is not None:
            plane, head, _ = self.requests.popleft()
            self.buffers.setdefault((plane, head), []).append(request[1].target)
            if plane != "key" and head not in self.with_operands:
                self.with_operands.add(head)
                self.value_credits -= 1
        self._step_issue(picked, product)
        self._step_bound(score)
        finished = self.compact_delay.tick(compacted)
        if finished is not None:
            self.again.append(finished)
        self._step_releases(product, weighted)
        self._record(cycle, picked, product, score, weighted, output)
        return output is not None

    def _pick(self) -> tuple[int, bool] | None:
        """The pass that enters the issue queue: a second one whose keys are there before a first one whose keys are asked for."""
        if len(self.issue) == self.cycles.issue_rows:
            return None
        if self.again:
            waiting = self.again[0] // self.shape.queries
            if not self.whole[waiting] or self._lsb_complete(waiting):
                return self.again[0], True
        head = self.fresh // self.shape.queries
        if self.fresh < self.rows and self.partial_credits > 0 and ("key", head) in self.buffers:
            return self.fresh, False
        return None

    def _request(self) -> tuple[str, Request] | None:
        """The next request of the program, if it can be picked in this cycle."""
        if not self.memory.accepts or not self.requests:
            return None
        plane, head, tile = self.requests[0]
        rows = self.shape.keys
        if plane == "key":
            before = head - self.shape.operand_banks
            if before >= 0 and self.keys_read[before] < self.shape.queries:
                return None
        else:
            needed = len(self.tile_beats) if plane == "lsb" else tile + 1
            if self.decided[head] < needed or (head not in self.with_operands and self.value_credits == 0):
                return None
            rows = sum(self.wanted[head]) if plane == "lsb" else self.wanted[head][tile]
        return plane, Request(Buffer(), rows, self.row_bits[plane])

    def _beats_of(self, row: int, second: bool) -> int:
        return self.second_beats[row // self.shape.queries] if second else self.first_beats

    def _product(self) -> ScoreBeat | None:
        """The beat the dot-product array starts: its part of the keys must be there."""
        if not self.issue or not self.scores.accepts() or not self._keys_ready():
            return None
        row, second = self.issue[0]
        last = self.issue_beat == self._beats_of(row, second) - 1
        return ScoreBeat((row, second, self.issue_beat, last), row, last, second)

    def _keys_ready(self) -> bool:
        row, second = self.issue[0]
        head = row // self.shape.queries
        return second or self._arrived("key", head) > self.issue_beat

    def _arrived(self, plane: str, head: int) -> int:
        return sum(buffer.beats_ready for buffer in self.buffers.get((plane, head), []))

    def _lsb_complete(self, head: int) -> bool:
        return self._arrived("lsb", head) == beats(sum(self.wanted[head]), self.cycles.lanes)

    def _values_ready(self, beat: Beat) -> bool:
        return self._arrived("value", beat[0] // self.shape.queries) > beat[2]

    def _compact(self) -> int | None:
        """One beat of stored sums is read back; the row whose last beat this was."""
        if not self.compacting:
            return None
        row, tile = self.compacting[0]
        if self.decided[row // self.shape.queries] <= tile:
            return None
        self.compacted_beats += 1
        if self.compacted_beats < self.tile_beats[tile]:
            return None
        self.compacted_beats = 0
        self.compacting.popleft()
        return row if tile == len(self.tile_beats) - 1 else None

    def _step_issue(self, picked: tuple[int, bool] | None, product: ScoreBeat | None) -> None:
        if product is not None:
            self.issue_beat += 1
            if product.last:
                self.issue.popleft()
                self.issue_beat = 0
                self.partial_credits += product.second_pass
        if picked is not None:
            self.issue.append(picked)
            if picked[1]:
                self.again.popleft()
            else:
                self.fresh += 1
                self.partial_credits -= 1

    def _step_bound(self, score: ScoreBeat | None) -> None:
        """A tile of a head is decided when the last row of the head has passed it."""
        ended = None
        if score is not None and not score.second_pass:
            index = score.payload[2]
            if (score.last or (index + 1) % self.shape.tile_beats == 0) and (score.row + 1) % self.shape.queries == 0:
                ended = score.row // self.shape.queries
        decided = self.bound_delay.tick(ended)
        if decided is not None:
            self.decided[decided] += 1

    def _step_releases(self, product: ScoreBeat | None, weighted: Beat | None) -> None:
        done = self.product_done.tick(product if product is not None and product.last else None)
        if done is not None and not done.second_pass:
            self.keys_read[done.row // self.shape.queries] += 1
        read = self.weighted_done.tick(weighted if weighted is not None and weighted[3] else None)
        if read is not None:
            head = read[0] // self.shape.queries
            self.read_rows[head] += 1
            self.value_credits += self.read_rows[head] == self.shape.queries

    def _observe(
        self, memory_ready: bool, product: ScoreBeat | None, waiting: Beat | None, weighted: Beat | None
    ) -> None:
        """What each of three units did in this cycle, or what it missed."""
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

    def _record(
        self,
        cycle: int,
        picked: tuple[int, bool] | None,
        product: ScoreBeat | None,
        score: ScoreBeat | None,
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
        if weighted is not None:
            line = self.line[weighted[:2]]
            line.setdefault("first_probability", cycle)
            line["last_probability"] = line["last_weighted"] = cycle
        if output is not None:
            self.line[output[:2]]["left"] = cycle
