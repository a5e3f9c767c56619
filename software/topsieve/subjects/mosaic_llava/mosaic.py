"""Mosaics of handwritten digits and questions about them: "which digit is at row r, column c", "how many 7s".

An answer depends on few of the image tokens, and the question says on which: what text-guided pruning can be right about.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.subjects.digits_vit.digits import SIDE, Digits

GRID = 4
PIXELS = GRID * SIDE
BLANK = 10  # label of a cell without a digit
BLANK_SHARE = 0.4
LARGEST_COUNT = 9

# Token ids; "row r, column c" is the one token PLACE + 4 r + c, the number n is NUMBER + n.
PAD, BEGIN, IMAGE, ASK, DIGIT, COUNT, NONE = range(7)
PLACE = NONE + 1
NUMBER = PLACE + GRID * GRID
VOCABULARY = NUMBER + 10

PATCH = 4
IMAGE_TOKENS = (PIXELS // PATCH) ** 2


@dataclass(frozen=True)
class Mosaics:
    """`pixels` float32 [n, 1, 32, 32] in [0, 1]; `cells` int64 [n, 4, 4], digits or `BLANK`."""

    pixels: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Question:
    """`prompt` token ids that end in `ASK`, `answer` one token id, `cell` (row, column) where one cell decides."""

    prompt: tuple[int, ...]
    answer: int
    cell: tuple[int, int] | None


def make_mosaics(digits: Digits, count: int, random: torch.Generator) -> Mosaics:
    """`count` mosaics of 4 x 4 cells, each blank with probability 0.4, else a random image of `digits`."""
    chosen = torch.randint(len(digits.labels), (count, GRID, GRID), generator=random)
    blank = torch.rand((count, GRID, GRID), generator=random) < BLANK_SHARE
    tiles = digits.images[chosen].masked_fill(blank[..., None, None], 0)
    pixels = tiles.permute(0, 1, 3, 2, 4).reshape(count, 1, PIXELS, PIXELS)
    return Mosaics(pixels, digits.labels[chosen].masked_fill(blank, BLANK))


def which_digit(cells: Tensor, row: int, column: int) -> Question:
    """The digit of one cell of `cells` [4, 4]; the answer to a blank cell is `NONE`."""
    label = int(cells[row, column])
    prompt = (DIGIT, PLACE + row * GRID + column, ASK)
    return Question(prompt, NONE if label == BLANK else NUMBER + label, (row, column))


def how_many(cells: Tensor, digit: int) -> Question:
    """How often `digit` is in `cells` [4, 4]; more than 9 are counted as 9."""
    count = min(int((cells == digit).sum()), LARGEST_COUNT)
    return Question((COUNT, NUMBER + digit, ASK), NUMBER + count, None)


def prompt_ids(question: Question) -> Tensor:
    """int64 [N]: begin, the image's place holders, the question."""
    return torch.tensor([BEGIN, *[IMAGE] * IMAGE_TOKENS, *question.prompt])
