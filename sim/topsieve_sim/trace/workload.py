"""Reader of the SpAtten authors' workload CSV: one row is one query of one head in one generated token.

Source: specification `accelerator`, section 1.6.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import (
    UNQUANTISED_BITS,
    ColumnSum,
    Op,
    ProbabilityValue,
    QueryKey,
    Softmax,
    TopK,
    TopKScope,
)
from topsieve_sim.trace.trace import Trace

COLUMNS = (
    "iteration_id",
    "layer_id",
    "head_id",
    "embedding_length_D",
    "sentence_length_L",
    "key_fetch_num",
    "quant_key_bit",
    "quant_query_bit",
    "auto_requant_thres",
    "if_requant",
    "auto_requant_incre",
    "value_fetch_num",
    "quant_value_bit",
    "if_accumulate_importance",
    "if_rescale_previous_importance",
    "if_topk",
    "topk",
)

WORKLOADS = ("gpt2-small-wikitext2-dense", "gpt2-small-wikitext2-pruned")

_UNUSED = -1


def load_workload(name: str) -> Trace:
    """A published workload that ships with the package, by its name in `WORKLOADS`.

    Raises
    ------
    InputError
        no workload has this name.
    """
    if name not in WORKLOADS:
        raise InputError("unknown workload", value=name, allowed=", ".join(WORKLOADS))
    packed = (files("topsieve_sim.trace") / "data" / f"{name}.csv.gz").read_bytes()
    return _parse(gzip.decompress(packed).decode("utf-8"), source=name)


def read_workload(path: str | Path) -> Trace:
    """The workload CSV at `path` (gzip-compressed if it ends in `.gz`) as a trace without operands.

    A row becomes an attention group of one query and one head: K of `key_fetch_num` rows in `quant_key_bit` bits plus
    an LSB plane of `auto_requant_incre` bits, fetched where `if_requant`; V of `value_fetch_num` rows, chosen by a local
    top-k where that is fewer. `if_topk` adds the cascade's token selection: of the layer's keys, or of the whole sentence
    where `if_rescale_previous_importance` (it then serves layer 0 of the next token). Bits of -1 are 32.

    Raises
    ------
    InputError
        the file is missing or not such a CSV; names the file, the row (1 is the first after the header) and the column.
    """
    source = str(path)
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if source.endswith(".gz") else raw).decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=source) from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError("not a workload CSV in UTF-8 (or gzip of one)", source=source) from error
    return _parse(text, source)


def _parse(text: str, source: str) -> Trace:
    lines = csv.reader(io.StringIO(text))
    header = next(lines, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError("column is missing", source=source, field=missing[0])
    ops: list[Op] = []
    notes: list[str] = []
    layers = heads = 0
    for number, cells in enumerate(lines, start=1):
        if not any(cells):
            continue
        if cells[0] and not any(cells[1:]):  # the files end with the path of the recipe they were made with
            notes.append(f"recipe: {cells[0]}")
            continue
        row = _Row(source, number, dict(zip(header, cells, strict=False)))
        try:
            ops += _row_ops(row)
        except InputError as error:
            if error.source:
                raise
            raise InputError(str(error), source=source, field=f"row {number}") from error
        layers = max(layers, row.integer("layer_id", 0) + 1)
        heads = max(heads, row.integer("head_id", 0) + 1)
    if not ops:
        raise InputError("holds no rows", source=source)
    notes.append("scores are not part of the file")
    name = Path(source).name.removesuffix(".gz").removesuffix(".csv")
    return Trace(tuple(ops), model=name, method="as published", layers=layers, heads=heads, notes=tuple(notes))


class _Row:
    """One line of the file; every accessor raises `InputError` with its row and column."""

    def __init__(self, source: str, number: int, cells: Mapping[str, str]) -> None:
        self._source, self._number, self._cells = source, number, cells

    def _wrong(self, column: str, allowed: str) -> InputError:
        where = f"row {self._number}, column {column}"
        return InputError(
            "wrong value", source=self._source, field=where, value=self._cells.get(column, ""), allowed=allowed
        )

    def number(self, column: str) -> float:
        try:
            return float(self._cells.get(column, ""))
        except ValueError:
            raise self._wrong(column, "a number") from None

    def integer(self, column: str, minimum: int, maximum: int | None = None) -> int:
        value = self.number(column)
        if not value.is_integer() or value < minimum or (maximum is not None and value > maximum):
            limit = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise self._wrong(column, f"an integer, {limit}")
        return int(value)

    def bits(self, column: str) -> int:
        value = self.integer(column, _UNUSED, UNQUANTISED_BITS)
        if value == 0:
            raise self._wrong(column, f"1 to {UNQUANTISED_BITS}, or -1 for no quantisation")
        return UNQUANTISED_BITS if value == _UNUSED else value

    def flag(self, column: str) -> bool:
        value = self._cells.get(column, "")
        if value not in ("True", "False"):
            raise self._wrong(column, "True, False")
        return value == "True"


def _row_ops(row: _Row) -> Iterator[Op]:
    step, layer, head = (row.integer(name, 0) for name in ("iteration_id", "layer_id", "head_id"))
    sentence = row.integer("sentence_length_L", 1)
    keys = row.integer("key_fetch_num", 1, sentence)
    kept = row.integer("value_fetch_num", 1, keys)
    head_dim = row.integer("embedding_length_D", 1)
    threshold = row.number("auto_requant_thres")
    yield QueryKey(
        layer=layer,
        step=step,
        heads=1,
        kv_heads=1,
        queries=1,
        keys=keys,
        head_dim=head_dim,
        first_head=head,
        query_bits=row.bits("quant_query_bit"),
        key_msb_bits=row.bits("quant_key_bit"),
        key_lsb_bits=max(row.integer("auto_requant_incre", _UNUSED, UNQUANTISED_BITS), 0),
        threshold=0.0 if threshold == _UNUSED else threshold,
        lsb_rows=int(row.flag("if_requant")),
    )
    yield Softmax(layer=layer, step=step, heads=1, rows=1, cols=keys)
    if row.flag("if_accumulate_importance"):
        yield ColumnSum(layer=layer, step=step, heads=1, rows=1, cols=keys)
    if kept < keys:
        yield TopK(layer=layer, step=step, n=keys, k=kept, scope=TopKScope.VALUE)
    yield ProbabilityValue(
        layer=layer,
        step=step,
        heads=1,
        kv_heads=1,
        queries=1,
        keys=keys,
        kept=kept,
        head_dim=head_dim,
        value_bits=row.bits("quant_value_bit"),
    )
    if row.flag("if_topk"):
        candidates = sentence if row.flag("if_rescale_previous_importance") else keys
        selected = row.integer("topk", 1, candidates)
        yield TopK(layer=layer, step=step, n=candidates, k=selected, scope=TopKScope.TOKEN)
