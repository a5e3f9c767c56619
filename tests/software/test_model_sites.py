"""Steps at every site, several in one layer, and states that travel with the tokens, on methods made for the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topsieve
from software.encoders import alone, ragged_batch, relative, tiny_encoder
from topsieve.record import Record
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import ClassAttention, CumulativeAttention
from topsieve.reduction.selectors import TopScores

TOKENS = 16


@dataclass(frozen=True)
class TwoStages:
    """`first` tokens stay by the CLS row after attention of layer 1, `second` by column sums at `site` of layers 1 and 2."""

    name: ClassVar[str] = "two-stages"

    first: int = 12
    second: int = 9
    third: int = 5
    site: Site = Site.LAYER

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        early = ListedLayers(Site.MID_LAYER, ((1, Budget(count=self.first)),))
        late = ListedLayers(self.site, ((1, Budget(count=self.second)), (2, Budget(count=self.third))))
        return (
            Stage(early, ClassAttention(), TopScores(), Drop()),
            Stage(late, CumulativeAttention(), TopScores(), Drop(), accumulates=True),
        )

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()


def probabilities(record: Record, layer: int) -> torch.Tensor:
    """float64 [H, N, N] of the only sequence, from the operands of the record."""
    query, key = record.layers[layer].query[0].double(), record.layers[layer].key[0].double()
    return (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)


def best(scores: torch.Tensor, count: int) -> torch.Tensor:
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def test_two_stages_in_one_layer_see_what_the_first_left() -> None:
    """Signals are gathered for the second stage, and its state for the next layer."""
    model = tiny_encoder()
    batch = ragged_batch((TOKENS,))
    for site in (Site.LAYER, Site.MID_LAYER):
        method = TwoStages(site=site)
        with torch.no_grad(), topsieve.reduce(model, method, operands=True) as reduced:
            hidden = model(**batch).last_hidden_state
        record = reduced.record
        first = probabilities(record, 1)
        positions = best(first[:, 0].mean(0), method.first)
        state = first.sum((0, 1))[positions]
        chosen = best(state, method.second)
        positions, state = positions[chosen], state[chosen]
        assert record.layers[2].positions[0].tolist() == positions.tolist()
        state = state + probabilities(record, 2).sum((0, 1))
        positions = positions[best(state, method.third)]
        assert reduced.positions[0].tolist() == positions.tolist()
        assert hidden.shape == (1, method.third, 32)
        assert [layer.attention_padded for layer in record.layers] == [16, 16, 9, 5]
        mid_layer = site is Site.MID_LAYER
        assert [layer.ffn_padded for layer in record.layers] == ([16, 9, 5, 5] if mid_layer else [16, 12, 9, 5])


def test_steps_after_the_layer_are_lowered_after_its_ffn() -> None:
    model = tiny_encoder()
    with torch.no_grad(), topsieve.reduce(model, TwoStages()) as reduced:
        model(**ragged_batch((TOKENS, TOKENS - 3)))
    kinds = [op.kind for op in topsieve.lower(reduced.record).ops if op.layer == 1 and op.sequence == 1]
    assert kinds[-5:] == ["topk", "gather", "feed_forward", "topk", "gather"]
    assert reduced.record.layers[1].signals == {Signal.ATTENTION_CLS_ROW, Signal.ATTENTION_COLUMN_SUM}
    assert reduced.record.layers[0].signals == frozenset()


MODEL = tiny_encoder()
LAWS = ("spatten:head_keep=0.5,value_keep=0.4", "tome", "evit", "powerbert", "ltp:final_token_threshold=0.1", "pooling")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 24), min_size=1, max_size=4),
    st.integers(0, 5),
    st.sampled_from(LAWS),
    st.integers(0, 1000),
)
def test_any_padded_batch_equals_its_sequences_alone(lengths: list[int], more: int, method: str, seed: int) -> None:
    """Down to one token a sequence, and with columns that are padding in every row."""

    batch = ragged_batch(tuple(lengths), padded=max(lengths) + more, seed=seed)
    with torch.no_grad(), topsieve.reduce(MODEL, method) as together:
        hidden = MODEL(**batch).last_hidden_state
    for row in range(len(lengths)):
        with torch.no_grad(), topsieve.reduce(MODEL, method) as single:
            wanted = MODEL(**alone(batch, row)).last_hidden_state[0]
        live = together.valid[row]
        assert together.positions[row][live].tolist() == single.positions[0].tolist()
        assert relative(hidden[row][live], wanted) < 1e-5  # float32 rounding of another summation order
