"""What a trace and its data decide before any time is known: rows, second passes, selections, bytes, actions.

In two steps, each found once for all machines that share it: `Content` is what the data decides in the machine's number
formats, `Facts` adds the selections of its top-k engine. Both are those of the cycle model, from the operands or drawn
with the run's seed; no time is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, SelectorKind
from topsieve_sim.closed_form.rows import Descriptors
from topsieve_sim.energy.components import Key
from topsieve_sim.engine.attention import (
    NO_SELECTION,
    Assumptions,
    Attended,
    Decisions,
    Events,
    Memo,
    StoredWidths,
    actions_of,
    attend,
    attending,
    decide,
    events_of,
    memo_of,
    selection_actions,
    stored_widths,
    timing_group,
)
from topsieve_sim.engine.program import AttentionWork, Program
from topsieve_sim.engine.selection import Borders, Selections, borders, drawn_selections, selections
from topsieve_sim.engine.simulate import BATCH, cascade_selections
from topsieve_sim.engine.singles import HOST_KINDS
from topsieve_sim.errors import InputError
from topsieve_sim.report import Traffic
from topsieve_sim.timing.attention_group import AttentionGroup
from topsieve_sim.trace.groups import SingleOp
from topsieve_sim.trace.ops import Op

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Single:
    """An operation outside attention groups, how often it stands in the trace, and its selection cycles in all."""

    index: int
    op: Op
    count: int
    selection_cycles: int


@dataclass(frozen=True)
class _Descriptor:
    """One descriptor without its selections; `scores` of all its rows where data decides them, see `Attended`."""

    group: AttentionGroup
    shape: tuple[int, ...]
    row_keys: Int64
    twice: NDArray[np.bool_]
    scores: NDArray[np.uint16] | None

    @property
    def selects(self) -> bool:
        return self.group.kept < self.group.keys


@dataclass(frozen=True)
class _Batch:
    """Units that the cycle model decides at once: places of its descriptors, of its other operations, and the units."""

    descriptors: tuple[int, ...]
    singles: tuple[tuple[int, SingleOp], ...]


@dataclass(frozen=True)
class _Scored:
    """Rows of the descriptors at `places` whose scores are known, as `selections` takes them; `bounds` between these."""

    places: tuple[int, ...]
    bounds: Int64
    sizes: Int64
    kept: Int64
    scores: Int64

    @cached_property
    def borders(self) -> Borders:
        return borders(self.sizes, self.kept, self.scores)


@dataclass(frozen=True)
class Content:
    """What the data decides on machines of equal formats; operations and descriptors that are equal stand once.

    events : summed over all attention descriptors, by the widths of their operands. output_rows : rows that leave, by
    head_dim. read_bytes : of all attention descriptors.
    """

    program: Program
    batches: tuple[_Batch, ...]
    descriptors: tuple[_Descriptor, ...]
    singles: tuple[SingleOp, ...]
    events: Mapping[StoredWidths, Events]
    output_rows: Mapping[int, int]
    read_bytes: int
    query_rows: int
    lsb_rows: int

    @cached_property
    def scored(self) -> _Scored:
        known = [(place, each) for place, each in enumerate(self.descriptors) if each.scores is not None]
        sizes = [each.row_keys for _, each in known]
        nothing = np.zeros(0, np.int64)
        return _Scored(
            places=tuple(place for place, _ in known),
            bounds=np.cumsum([size.size for size in sizes], dtype=np.int64)[:-1],
            sizes=np.concatenate([nothing, *sizes]),
            kept=np.concatenate([nothing, *(np.full(each.row_keys.size, each.group.kept) for _, each in known)]),
            scores=np.concatenate([nothing, *(each.scores for _, each in known if each.scores is not None)]),
        )


@dataclass(frozen=True)
class Facts:
    """What does not depend on a machine's speeds.

    descriptors : shapes and rows of the attention descriptors, equal ones once; `repeats` int64 [descriptors] of each.
    head_dims, keys : int64 [descriptors]. singles, host : operations on the accelerator, and those that the host may run.
    selected_keys, selection_cycles : of all local value selections.
    """

    content: Content
    descriptors: Descriptors
    repeats: Int64
    head_dims: Int64
    keys: Int64
    singles: tuple[Single, ...]
    host: tuple[Single, ...]
    selected_keys: int
    selection_cycles: int

    def output_bytes(self, config: AcceleratorConfig) -> int:
        """What all attention descriptors write, every row to whole bytes."""
        bits = config.formats.output_bits
        return sum(rows * _size(width, bits) for width, rows in self.content.output_rows.items())

    def actions(self, config: AcceleratorConfig, output_bytes: int) -> Counter[Key]:
        """Of all attention descriptors on `config`."""
        actions: Counter[Key] = Counter()
        for place, (stored, events) in enumerate(self.content.events.items()):
            # Each width's share of the output is in nothing but the sum.
            written = 0 if place else 8 * output_bytes
            actions.update(actions_of(events._replace(written_bits=written), stored, config.formats))
        if self.selection_cycles:
            actions.update(selection_actions(self.selected_keys, self.selection_cycles, config))
        return actions


def content_name(program: Program, config: AcceleratorConfig) -> Hashable:
    """Equal for machines that share a `Content`."""
    return (attending(program, config), config.max_head_dim)


def facts_name(program: Program, config: AcceleratorConfig) -> Hashable:
    """Equal for machines that share `Facts`."""
    formats = config.formats
    widths = (formats.probability_bits, formats.token_importance_bits, formats.head_importance_bits)
    return (content_name(program, config), tuple(config.topk.model_dump().values()), widths)


def content_of(program: Program, config: AcceleratorConfig) -> Content:
    """What `program` decides on all machines with the `content_name` of `config`.

    Raises
    ------
    InputError
        a descriptor does not fit the machine.
    """
    memo = memo_of(program, config)
    batches: list[_Batch] = []
    places: dict[Hashable, int] = {}
    descriptors: list[_Descriptor] = []
    events: list[tuple[StoredWidths, Events]] = []
    read_bytes: list[int] = []
    repeats: Counter[int] = Counter()
    single_places: dict[Hashable, int] = {}
    singles: list[SingleOp] = []
    query_rows = 0
    for first in range(0, len(program.work), BATCH):
        mine: list[int] = []
        others: list[tuple[int, SingleOp]] = []
        for unit in program.work[first : first + BATCH]:
            if isinstance(unit, SingleOp):
                # Equal operations outside selection differ in nothing but their place.
                op = replace(unit.op, layer=0, sequence=0, step=0)
                place = single_places.setdefault(op, len(singles))
                if place == len(singles):
                    singles.append(unit)
                others.append((place, unit))
                continue
            decided = _decided(unit, program, config, memo)
            place = places.setdefault((unit.shape, decided.name), len(descriptors))
            if place == len(descriptors):
                descriptors.append(_descriptor(unit, decided, config))
                stored = stored_widths(unit, config)
                moved = read_traffic(descriptors[-1])
                read_bytes.append(sum(moved.values()))
                events.append((stored, events_of(unit, decided, stored, moved)))
            repeats[place] += 1
            mine.append(place)
            query_rows += unit.heads * unit.query_key.queries
        batches.append(_Batch(tuple(mine), tuple(others)))
    output_rows: Counter[int] = Counter()
    totals: dict[StoredWidths, Events] = {}
    for place, count in repeats.items():
        group = descriptors[place].group
        output_rows[group.head_dim] += count * group.heads * group.queries
        stored, done = events[place]
        before = totals.get(stored, Events(*[0] * len(done)))
        totals[stored] = Events(*(total + count * number for total, number in zip(before, done, strict=True)))
    return Content(
        program=program,
        batches=tuple(batches),
        descriptors=tuple(descriptors),
        singles=tuple(singles),
        events=totals,
        output_rows=output_rows,
        read_bytes=sum(count * read_bytes[place] for place, count in repeats.items()),
        query_rows=query_rows,
        lsb_rows=sum(count * int(descriptors[place].twice.sum()) for place, count in repeats.items()),
    )


def facts_of(content: Content, config: AcceleratorConfig, seed: int) -> Facts:
    """The facts on all machines with the `facts_name` of `config`."""
    generator = np.random.default_rng(seed)
    known = _computed_selections(content, config)
    places: dict[Hashable, int] = {}
    chosen: list[tuple[_Descriptor, Selections]] = []
    repeats: list[int] = []
    counts, cycles = [0] * len(content.singles), [0] * len(content.singles)
    selected_keys = selection_cycles = 0
    for batch in content.batches:
        drawn = iter(_drawn_selections(content, batch, config, generator))
        # In the order of the cycle model, so that equal seeds draw equal scores.
        units = [unit for _, unit in batch.singles]
        cascade, _ = cascade_selections(units, content.program.trace, config, generator)
        for which in batch.descriptors:
            descriptor = content.descriptors[which]
            name: Hashable = which
            selection = known.get(which, NO_SELECTION)
            if descriptor.selects:
                if which not in known:
                    selection = next(drawn)
                    name = (which, selection.cycles.tobytes(), selection.flush.tobytes())
                selected_keys += int(descriptor.row_keys.sum())
                selection_cycles += int(selection.cycles.sum())
            place = places.setdefault(name, len(chosen))
            if place == len(chosen):
                chosen.append((descriptor, selection))
                repeats.append(0)
            repeats[place] += 1
        for place, unit in batch.singles:
            counts[place] += 1
            cycles[place] += cascade.get(unit.index, 0)
    found = [
        Single(unit.index, unit.op, count, taken)
        for unit, count, taken in zip(content.singles, counts, cycles, strict=True)
    ]
    return Facts(
        content=content,
        descriptors=_descriptors(chosen),
        repeats=np.array(repeats, np.int64),
        head_dims=np.array([descriptor.group.head_dim for descriptor, _ in chosen], np.int64),
        keys=np.array([descriptor.group.keys for descriptor, _ in chosen], np.int64),
        singles=tuple(single for single in found if single.op.kind not in HOST_KINDS),
        host=tuple(single for single in found if single.op.kind in HOST_KINDS),
        selected_keys=selected_keys,
        selection_cycles=selection_cycles,
    )


def _decided(unit: AttentionWork, program: Program, config: AcceleratorConfig, memo: Memo) -> Attended | Decisions:
    attended = attend(unit, program.trace, config, memo)
    return decide(unit, program.trace, config, memo, Assumptions()) if attended is None else attended


def _descriptor(unit: AttentionWork, decided: Attended | Decisions, config: AcceleratorConfig) -> _Descriptor:
    scores = decided.scores if isinstance(decided, Attended) else None
    alone = Decisions(decided.name, decided.row_keys, decided.lsb, None)
    group = timing_group(unit, alone, NO_SELECTION, config)
    group.check(config)
    return _Descriptor(group, group.shape(config), decided.row_keys, decided.lsb, scores)


def _computed_selections(content: Content, config: AcceleratorConfig) -> dict[int, Selections]:
    """Selections of the descriptors whose scores are known, all rows at once."""
    scored = content.scored
    if not scored.places:
        return {}
    known = None if config.topk.selector is SelectorKind.QUICK else scored.borders
    every = selections(config, scored.sizes, scored.kept, scored.scores, config.formats.probability_bits, known)
    parts = zip(np.split(every.cycles, scored.bounds), np.split(every.flush, scored.bounds), strict=True)
    return {place: Selections(*part) for place, part in zip(scored.places, parts, strict=True)}


def _drawn_selections(
    content: Content, batch: _Batch, config: AcceleratorConfig, generator: np.random.Generator
) -> list[Selections]:
    """Selections of the batch's descriptors whose scores are not known."""
    drawn = [content.descriptors[place] for place in batch.descriptors]
    drawn = [descriptor for descriptor in drawn if descriptor.selects and descriptor.scores is None]
    return drawn_selections(
        config,
        [descriptor.row_keys for descriptor in drawn],
        [descriptor.group.kept for descriptor in drawn],
        config.formats.probability_bits,
        generator,
    )


def read_traffic(descriptor: _Descriptor) -> dict[Traffic, int]:
    """Bytes that a descriptor reads from an ideal memory: every plane and row packed, to whole bytes."""
    group = descriptor.group
    query_bits, key_bits, lsb_bits, value_bits = descriptor.shape[7:11]
    rows, width = group.heads * group.queries, group.head_dim
    twice = descriptor.twice.reshape(group.heads, group.queries).any(axis=1).sum()
    if group.kept < group.keys and group.queries == 1:
        value = sum(_size(min(group.kept, keys) * width, value_bits) for keys in descriptor.row_keys.tolist())
    else:
        value = group.heads * _size(group.keys * width, value_bits)
    sizes = {
        Traffic.QUERY: rows * _size(width, query_bits),
        Traffic.KEY_MSB: group.heads * _size(group.keys * width, key_bits),
        Traffic.KEY_LSB: int(twice) * _size(group.keys * width, lsb_bits),
        Traffic.VALUE: value,
    }
    return {kind: size for kind, size in sizes.items() if size}


def _size(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _descriptors(chosen: list[tuple[_Descriptor, Selections]]) -> Descriptors:
    shapes = np.array([descriptor.shape[:13] for descriptor, _ in chosen], np.int64).reshape(len(chosen), 13)
    heads, queries, keys, kept, width, _, key_bits, lsb_bits, value_bits, _, progressive = shapes.T[2:]
    rows = [descriptor.row_keys.size for descriptor, _ in chosen]
    nothing = np.zeros(max(rows, default=0), np.int64)

    def joined(values: list[Int64]) -> Int64:
        return np.concatenate([np.zeros(0, np.int64), *values])

    def of_rows(values: Int64, count: int) -> Int64:
        return values if values.size else nothing[:count]

    return Descriptors(
        heads=heads.copy(),
        queries=queries.copy(),
        keys=keys.copy(),
        kept=kept.copy(),
        key_row_bits=width * key_bits,
        lsb_row_bits=width * lsb_bits,
        value_row_bits=width * value_bits,
        progressive=progressive.copy(),
        offset=np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64),
        row_keys=joined([descriptor.row_keys for descriptor, _ in chosen]),
        twice=np.concatenate([np.zeros(0, np.bool_), *(descriptor.twice for descriptor, _ in chosen)]),
        select_cycles=joined([of_rows(each.cycles, count) for (_, each), count in zip(chosen, rows, strict=True)]),
        flush_cycles=joined([of_rows(each.flush, count) for (_, each), count in zip(chosen, rows, strict=True)]),
    )


def refuse(config: AcceleratorConfig) -> None:
    """Raise `InputError` for machines that have no closed form."""
    if config.memory.model != "ideal":
        raise InputError(
            "closed forms know the ideal memory only; simulate this machine to the cycle",
            field="memory.model",
            value=str(config.memory.model),
            allowed="ideal",
        )
    others = [name for name in config.successor.features if name != "buffered_heads"]
    if others:
        raise InputError(
            "closed forms do not know this feature; simulate this machine to the cycle",
            field=f"successor.{others[0]}",
            value=getattr(config.successor, others[0]),
        )
