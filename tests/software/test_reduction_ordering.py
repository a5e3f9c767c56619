"""The one tie rule: specification `reduction-interface`, section 4.2."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve.reduction import compact, live_rank, stable_top_k

BOUNDED = settings(max_examples=60, deadline=None)
# Few values, so that ties are the rule; infinities and not-a-number must not break the order.
SCORE = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, float("inf"), float("-inf"), float("nan")])
ROW = st.lists(st.tuples(SCORE, st.booleans()), min_size=1, max_size=12)


def naive_top_k(scores: list[float], eligible: list[bool], k: int) -> list[int]:
    """The k largest, of equal ones the lowest index, ascending; not-a-number counts as minus infinity."""

    def key(i: int) -> tuple[float, int]:
        return (float("inf") if scores[i] != scores[i] else -scores[i], i)

    candidates = [i for i in range(len(scores)) if eligible[i]]
    return sorted(sorted(candidates, key=key)[:k])


@given(rows=st.lists(ROW, min_size=1, max_size=4), data=st.data())
@BOUNDED
def test_largest_win_ties_go_to_the_lowest_index_survivors_ascend(
    rows: list[list[tuple[float, bool]]], data: st.DataObject
) -> None:
    width = max(map(len, rows))
    padded = [row + [(9.0, False)] * (width - len(row)) for row in rows]
    scores = torch.tensor([[score for score, _ in row] for row in padded])
    eligible = torch.tensor([[live for _, live in row] for row in padded])
    counts = data.draw(st.lists(st.integers(0, width + 2), min_size=len(rows), max_size=len(rows)))
    ids, valid = stable_top_k(scores, torch.tensor(counts), eligible)
    for row, k in enumerate(counts):
        expected = naive_top_k(scores[row].tolist(), eligible[row].tolist(), k)
        assert ids[row, valid[row]].tolist() == expected
        assert (ids[row, len(expected) :] == -1).all()
    assert ids.shape[1] == valid.sum(-1).max()


@pytest.mark.parametrize("k", [1, 700, 4095])
def test_ties_in_long_rows(k: int) -> None:
    """Sorting is another algorithm for long rows, and an unstable one if it is allowed to be."""
    scores = torch.randint(0, 3, (4096,), generator=torch.Generator().manual_seed(k)).float()
    ids, _ = stable_top_k(scores.unsqueeze(0), torch.tensor([k]), torch.ones(1, 4096, dtype=torch.bool))
    assert ids[0].tolist() == naive_top_k(scores.tolist(), [True] * 4096, k)


@given(row=ROW, k=st.integers(0, 12))
@BOUNDED
def test_a_larger_budget_keeps_what_a_smaller_one_keeps(row: list[tuple[float, bool]], k: int) -> None:
    scores = torch.tensor([[score for score, _ in row]])
    eligible = torch.tensor([[live for _, live in row]])
    fewer, _ = stable_top_k(scores, torch.tensor([k]), eligible)
    more, _ = stable_top_k(scores, torch.tensor([k + 1]), eligible)
    assert set(fewer[0].tolist()) <= set(more[0].tolist())


@given(rows=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
@BOUNDED
def test_compact_lists_the_chosen(rows: list[list[bool]]) -> None:
    chosen = torch.tensor(rows)
    ids, valid = compact(chosen)
    rank = live_rank(chosen)
    for row, flags in enumerate(rows):
        expected = [i for i, flag in enumerate(flags) if flag]
        assert ids[row, valid[row]].tolist() == expected
        assert rank[row].tolist() == [expected.index(i) if flag else -1 for i, flag in enumerate(flags)]


def test_no_rows_and_nothing_chosen() -> None:
    assert compact(torch.zeros(0, 3, dtype=torch.bool))[0].shape == (0, 0)
    assert compact(torch.zeros(2, 3, dtype=torch.bool))[0].shape == (2, 0)
