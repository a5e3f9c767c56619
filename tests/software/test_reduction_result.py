"""`Reduction`: what it moves, what it brings back, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve.reduction import Reduction, SparseMap

BOUNDED = settings(max_examples=40, deadline=None)


def merged() -> Reduction:
    """Two sequences of 4 and 3 tokens: {0}, {1 and 3, weighted}, synthetic {2}; and {0}, {2}."""
    entries = [(0, 0, 0, 1.0), (0, 1, 1, 0.25), (0, 1, 3, 0.75), (0, 2, 2, 3.0), (1, 0, 0, 1.0), (1, 1, 2, 1.0)]
    batch, out, source, weight = (torch.tensor(column) for column in zip(*entries, strict=True))
    return Reduction(
        n_in=4,
        keep=torch.tensor([[0, 1, -1], [0, 2, -1]]),
        valid=torch.tensor([[True, True, True], [True, True, False]]),
        positions=torch.tensor([[0, 1, -1], [0, 2, -1]]),
        size=torch.tensor([[1.0, 4.0, 1.0], [1.0, 1.0, 0.0]]),
        scores=torch.zeros(2, 4),
        maps={"x": SparseMap.of(batch, out, source, weight)},
    )


X = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 0.0]]).unsqueeze(-1)


def test_features_follow_the_map_and_state_follows_the_kept_tokens() -> None:
    reduction = merged()
    assert reduction.apply(X).squeeze(-1).tolist() == [[1, 0.25 * 2 + 0.75 * 8, 12], [16, 64, 0]]
    assert reduction.gather(X, fill=-5).squeeze(-1).tolist() == [[1, 2, -5], [16, 64, -5]]
    # A role without a map of its own is the gather.
    assert reduction.apply(X, role="v").equal(reduction.gather(X))
    assert reduction.n_out == 3
    assert reduction.kept.tolist() == [2, 2]
    assert reduction.tokens_out.tolist() == [3, 2]


def test_un_merging_copies_each_slot_to_its_sources() -> None:
    y = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 99.0]])
    assert merged().scatter_back(y).tolist() == [[10, 20, 30, 20], [40, 0, 50, 0]]
    assert merged().slots().tolist() == [[0, 1, 2, 1], [0, -1, 1, -1]]


def test_a_token_in_several_slots_comes_back_from_the_one_that_keeps_it() -> None:
    entries = [(0, 0, 0, 1.0), (0, 0, 1, 0.5), (0, 0, 2, 0.5), (0, 1, 1, 1.0), (0, 1, 2, 0.5)]
    batch, out, source, weight = (torch.tensor(column) for column in zip(*entries, strict=True))
    whole = torch.ones(1, 2)
    reduction = Reduction(
        3, torch.tensor([[0, 1]]), whole.bool(), torch.tensor([[0, 1]]), whole, torch.zeros(1, 3),
        {"x": SparseMap.of(batch, out, source, weight)},
    )  # fmt: skip
    assert reduction.slots().tolist() == [[0, 1, 0]]


def test_sources_and_sizes() -> None:
    made_of = merged().sources()
    assert made_of[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert made_of[1].int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(merged().log_size().exp(), torch.tensor([[1.0, 4.0, 1.0], [1.0, 1.0, 1.0]]))


def test_what_counts_as_pruning() -> None:
    identity = Reduction.identity(torch.tensor([[True, True, False]]))
    assert identity.is_prune()
    assert not merged().is_prune()
    weighted = replace(identity, maps={"v": replace(identity.map(), weight=torch.tensor([1.0, 0.5]))})
    assert not weighted.is_prune()
    doubled = SparseMap.of(*(torch.tensor(c) for c in ([0, 0, 0], [0, 1, 1], [0, 0, 1])), torch.ones(3))
    assert not replace(identity, maps={"x": doubled}).is_prune()
    assert replace(identity, maps={"x": identity.map()}).is_prune()


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    dtype=st.sampled_from(["float16", "bfloat16", "float64"]),
)
@BOUNDED
def test_identity_returns_every_live_row_to_the_bit(lengths: list[int], dtype: str) -> None:
    valid = torch.arange(7) < torch.tensor(lengths).unsqueeze(1)
    x = torch.randn(len(lengths), 7, 2).to(getattr(torch, dtype))
    identity = Reduction.identity(valid)
    assert identity.apply(x)[identity.valid].equal(x[valid])
    assert identity.apply(x).dtype == x.dtype
    assert identity.scatter_back(identity.apply(x)).equal(x * valid.unsqueeze(-1))
    again = identity.then(Reduction.identity(identity.valid, positions=identity.positions, size=identity.size))
    assert again.keep.equal(identity.keep)
    assert again.size.sum(-1).tolist() == lengths


def test_identity_gathers_live_rows_that_are_not_at_the_front() -> None:
    identity = Reduction.identity(torch.tensor([[False, True, True], [True, False, False]]))
    assert identity.keep.tolist() == [[1, 2], [0, -1]]
    assert identity.positions.tolist() == [[1, 2], [0, -1]]


def test_weights_are_applied_in_the_wider_type() -> None:
    """0.1 x 2048 in bfloat16 weights would be 205; in float32 weights it rounds to 204.8's neighbour."""
    place = torch.zeros(1, dtype=torch.int64)
    entries = SparseMap(place, place, place, torch.tensor([0.1]))
    y = entries.apply(torch.full((1, 1, 1), 2048, dtype=torch.bfloat16), 1)
    assert y.dtype == torch.bfloat16
    assert y.item() == torch.tensor(204.8, dtype=torch.bfloat16).item()


@given(seed=st.integers(0, 1000), shape=st.tuples(*[st.integers(1, 5)] * 5))
@BOUNDED
def test_products_of_maps_are_products_of_matrices(seed: int, shape: tuple[int, ...]) -> None:
    """Any maps: several slots a source, several sources a slot, empty ones."""
    rows, a, b, c, d = shape
    generator = torch.Generator().manual_seed(seed)

    def random_map(outs: int, ins: int) -> tuple[torch.Tensor, SparseMap]:
        dense = torch.randint(-2, 3, (rows, outs, ins), generator=generator).double()
        place = dense.nonzero(as_tuple=True)
        shuffled = torch.randperm(len(place[0]), generator=generator)
        return dense, SparseMap.of(*(index[shuffled] for index in place), dense[place][shuffled])

    (m1, s1), (m2, s2), (m3, s3) = random_map(b, a), random_map(c, b), random_map(d, c)
    x = torch.randint(-4, 5, (rows, a), generator=generator).double()
    # Small integers: every product is exact, so association cannot matter in the last bit either.
    expected = (m3 @ m2 @ m1 @ x.unsqueeze(-1)).squeeze(-1)
    assert s3.after(s2, c).after(s1, b).apply(x, d).equal(expected)
    assert s3.after(s2.after(s1, b), c).apply(x, d).equal(expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keep", torch.zeros(3, dtype=torch.int64)),
        ("valid", torch.zeros(2, 4, dtype=torch.bool)),
        ("positions", torch.zeros(1, 3, dtype=torch.int64)),
        ("size", torch.zeros(2, 2)),
        ("scores", torch.zeros(2, 3)),
    ],
)
def test_shapes_must_fit(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(merged(), **{field: value})


def test_only_what_fits_can_be_reduced_or_composed() -> None:
    with pytest.raises(ValueError, match="expected"):
        merged().apply(torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match="expected"):
        merged().scatter_back(torch.zeros(2, 4, 1))
    with pytest.raises(ValueError, match="must start from 2 x 3"):
        merged().then(merged())
    heads = Reduction.identity(merged().valid, axis="head")
    with pytest.raises(ValueError, match="tokens"):
        merged().then(heads)
