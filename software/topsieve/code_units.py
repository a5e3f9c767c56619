"""Units of source code: which tokens of a model belong to one identifier.

Specification `methods-text`, section 9. Python is read with its own lexer; for other languages give another `Lexer`.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class Lexeme:
    """Characters `start` to `stop` (behind the last) of the code; `identifier` is a name that is no keyword."""

    start: int
    stop: int
    identifier: bool


Lexer = Callable[[str], Sequence[Lexeme]]


def python_lexemes(code: str) -> tuple[Lexeme, ...]:
    """The lexemes of Python code, in order; white space, line ends and indentation are none.

    Raises
    ------
    InputError
        Python's lexer does not take it.
    """
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            start, stop = (starts[row - 1] + column for row, column in (token.start, token.end))
            if token.string.strip():
                name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
                found.append(Lexeme(start, stop, name))
    except (tokenize.TokenError, SyntaxError) as error:
        raise InputError(f"not Python: {error}", field="code") from error
    return tuple(found)


def code_units(
    code: str, spans: Sequence[tuple[int, int]], *, lexer: Lexer = python_lexemes, everything: bool = False
) -> list[int]:
    """The unit of each token, from 0 and never decreasing.

    Tokens of one identifier are a unit; every other token is one of its own. A token belongs to the lexeme that its
    first character that is no blank stands in.

    Parameters
    ----------
    code : the text.
    spans : characters of each token, start and end; empty ones are special tokens.
    everything : tokens of any one lexeme (keywords, numbers, strings) are a unit too.
    """
    lexemes = lexer(code)
    owner: dict[int, int] = {
        place: number
        for number, lexeme in enumerate(lexemes)
        if lexeme.identifier or everything
        for place in range(lexeme.start, lexeme.stop)
    }
    units: list[int] = []
    before = None
    for start, stop in spans:
        first = next((place for place in range(start, stop) if not code[place].isspace()), None)
        mine = None if first is None else owner.get(first)
        if mine is None or mine != before:
            units.append(units[-1] + 1 if units else 0)
        else:
            units.append(units[-1])
        before = mine
    return units


def batch_units(
    codes: Sequence[str], tokenizer: Any, *, lexer: Lexer = python_lexemes, everything: bool = False
) -> Tensor:
    """int64 [B, N]: the units of each code in a batch that `tokenizer` pads on the right; padding holds -1.

    Parameters
    ----------
    tokenizer : a fast one of transformers: it knows where in the text its tokens stand.
    """
    rows = [
        code_units(code, spans, lexer=lexer, everything=everything)
        for code, spans in zip(
            codes, tokenizer(list(codes), return_offsets_mapping=True)["offset_mapping"], strict=True
        )
    ]
    units = torch.full((len(rows), max(map(len, rows))), -1, dtype=torch.int64)
    for number, row in enumerate(rows):
        units[number, : len(row)] = torch.tensor(row)
    return units


def merged_graph_mask(mask: Tensor, units: Tensor) -> Tensor:
    """bool [M, M]: GraphCodeBERT's mask over units: one sees another where any of its members sees any of the other's.

    Parameters
    ----------
    mask : bool [N, N], query rows. units : int64 [N], from 0 without gaps; -1 for padding. Nodes of the data flow are
        units of their own.
    """
    count = int(units.max()) + 1
    member = units.unsqueeze(0) == torch.arange(count, device=units.device).unsqueeze(1)
    seen: Tensor = member.double() @ mask.double() @ member.T.double() > 0
    return seen


def spread_back(merged: Tensor, units: Tensor) -> Tensor:
    """[N, C] of [M, C]: every token gets what its unit became; for outputs that need one row a token."""
    return merged[units]
