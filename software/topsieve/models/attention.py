"""Attention with what reductions need: signals, live heads, local value pruning, size bias, quantised operands.

The probabilities are computed for blocks of queries, so that no tensor of queries x keys for the whole sequence exists.
On a GPU plain attention goes through `kernel_attention`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from topsieve.models.kernel_attention import Summed, diagonal, probability_rows, summed_attention
from topsieve.models.kernel_attention import takes as kernels_take
from topsieve.models.quantise import quantise_operands
from topsieve.reduction.roles import AttentionPolicy, Signal

QUERY_BLOCK = 256

ROW_SIGNALS = frozenset(
    {
        Signal.ATTENTION_COLUMN_SUM,
        Signal.ATTENTION_DIAGONAL,
        Signal.ATTENTION_CLS_ROW,
        Signal.ATTENTION_LAST_ROW,
    }
)


@dataclass(frozen=True)
class Attended:
    """`output` float [B, N, H, d]; the signals asked for; `lsb_rows` int64 [B, H] where keys are progressive."""

    output: Tensor
    signals: Mapping[Signal, Tensor]
    lsb_rows: Tensor | None = None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    valid: Tensor,
    heads: Tensor,
    size: Tensor,
    scaling: float,
    policy: AttentionPolicy,
    needs: frozenset[Signal],
    dropout: float = 0.0,
    causal: bool = False,
    position_bias: Tensor | None = None,
) -> Attended:
    """Attention over the live tokens.

    Parameters
    ----------
    query : float [B, H, N, d]; key, value : float [B, KV, N, d] with KV a divisor of H.
    valid : bool [B, N], live tokens. Rows of the others attend like the rest, and no signal sees them.
    heads : bool [B, H], live heads; the others put out zeros and no signal sees them.
    size : float [B, N], input tokens that each token stands for.
    scaling : factor of the scores.
    policy : value pruning, size bias, bits.
    needs : signals to collect, of those that come from attention.
    dropout : probability, applied to the probabilities after the signals.
    causal : no query sees the keys after its own place.
    position_bias : float [1 or B, H, N, N], added to the scaled scores; None for models without one.
    """
    grouped = (key, value)
    key, value = expanded(key, query.shape[1]), expanded(value, query.shape[1])
    operand_signals = {Signal.QUERY: query, Signal.KEY: key, Signal.VALUE: value}
    signals = {signal: tensor for signal, tensor in operand_signals.items() if signal in needs}
    if dropout == 0 and position_bias is None and scaling > 0 and kernels_take(query, *grouped, policy):
        output, taken = _through_kernels(query, key, grouped, valid, heads, scaling, needs, causal)
        signals |= taken | class_scores(query, key, valid, scaling, needs)
        return Attended(output.transpose(1, 2).contiguous(), signals)
    first_pass = key
    if policy.bits is not None:
        operands = quantise_operands(query, key, value, valid, policy.bits)
        query, key, first_pass, value = operands.query, operands.key, operands.key_msb, operands.value
    key_bias = _key_bias(valid, size if policy.size_bias else None, query.dtype)
    counts = _value_counts(valid, policy.value_keep)
    live = heads[:, :, None] & valid[:, None, :]
    progressive = policy.bits is not None and policy.bits.key_lsb_bits > 0
    lsb_rows = torch.zeros_like(heads, dtype=torch.int64) if progressive else None
    tap = _Tap(needs, valid, live, query.dtype)
    outputs = []
    for start in range(0, query.shape[2], QUERY_BLOCK):
        rows = slice(start, start + QUERY_BLOCK)
        block = query[:, :, rows]
        bias = _causal(key_bias, start, block.shape[2]) if causal else key_bias
        if position_bias is not None:
            bias = bias + position_bias[:, :, rows]
        probability = _probability(block, first_pass, scaling, bias, policy.softmax_one)
        if policy.bits is not None and lsb_rows is not None:
            again = probability.amax(-1) < policy.bits.threshold
            lsb_rows += (again & live[:, :, rows]).sum(-1)
            probability = torch.where(
                again.unsqueeze(-1), _probability(block, key, scaling, bias, policy.softmax_one), probability
            )
        tap.add(probability, start)
        if counts is not None:
            probability = probability * largest(probability, counts)
        probability = nn.functional.dropout(probability, p=dropout, training=dropout > 0)
        outputs.append(torch.matmul(probability, value))
    output = torch.cat(outputs, dim=2) * heads[:, :, None, None]
    signals |= tap.signals
    signals |= class_scores(query, key, valid, scaling, needs, position_bias)
    if Signal.HEAD_ABSOLUTE_SUM in needs:
        signals[Signal.HEAD_ABSOLUTE_SUM] = tap.head_sum(output)
    return Attended(output.transpose(1, 2).contiguous(), signals, lsb_rows)


def _through_kernels(
    query: Tensor,
    key: Tensor,
    grouped: tuple[Tensor, Tensor],
    valid: Tensor,
    heads: Tensor,
    scaling: float,
    needs: frozenset[Signal],
    causal: bool,
) -> tuple[Tensor, dict[Signal, Tensor]]:
    """Output [B, H, N, d] and the signals of `_Tap`; `key` [B, H, N, d], `grouped` keys and values [B, KV, N, d]."""
    summed = summed_attention(query, *grouped, scaling=scaling, causal=causal, live_keys=valid, live_rows=valid)
    tap = _Tap(needs, valid, heads[:, :, None] & valid[:, None, :], query.dtype)
    tap.take(query, key, summed, scaling, causal)
    output = summed.output * heads[:, :, None, None]
    if Signal.HEAD_ABSOLUTE_SUM in needs:
        tap.signals[Signal.HEAD_ABSOLUTE_SUM] = tap.head_sum(output)
    return output, tap.signals


def class_scores(
    query: Tensor,
    key: Tensor,
    valid: Tensor,
    scaling: float,
    needs: frozenset[Signal],
    position_bias: Tensor | None = None,
) -> dict[Signal, Tensor]:
    """The scores of the first live query, of those signals that are asked for; key [B, H, N, d] as of `expanded`.

    `position_bias` as of `attend`; the row of all heads taken as one has none, because heads' biases are no products.
    """
    signals: dict[Signal, Tensor] = {}
    if needs & {Signal.ATTENTION_CLS_LOGITS, Signal.ATTENTION_JOINT_CLS_ROW}:
        first = valid.to(torch.int8).argmax(-1)
        rows = query[torch.arange(len(first), device=first.device), :, first]
        scores = (rows.unsqueeze(2) * key).sum(-1)
        dead = ~valid.unsqueeze(1)
        if Signal.ATTENTION_CLS_LOGITS in needs:
            logits = scores * scaling
            if position_bias is not None:
                whole = position_bias.expand(len(first), *position_bias.shape[1:])
                logits = logits + whole[torch.arange(len(first), device=first.device), :, first]
            signals[Signal.ATTENTION_CLS_LOGITS] = logits.masked_fill(dead, 0)
        if Signal.ATTENTION_JOINT_CLS_ROW in needs:
            width = query.shape[1] * query.shape[3]
            joint = scores.sum(1, keepdim=True) * width**-0.5
            signals[Signal.ATTENTION_JOINT_CLS_ROW] = joint.masked_fill(dead, float("-inf")).softmax(-1)
    return signals


def expanded(grouped: Tensor, heads: int) -> Tensor:
    """Keys or values [B, KV, N, d] with one entry a query head: [B, heads, N, d]."""
    groups = heads // grouped.shape[1]
    return grouped.repeat_interleave(groups, dim=1) if groups > 1 else grouped


def _probability(query: Tensor, key: Tensor, scaling: float, bias: Tensor, one: bool) -> Tensor:
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling + bias
    wide = torch.promote_types(scores.dtype, torch.float32)
    return (softmax_one if one else _softmax)(scores.to(wide)).to(query.dtype)


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def softmax_one(scores: Tensor) -> Tensor:
    """exp(x) / (1 + sum exp(x)) over the last dimension: the softmax beside one more score of 0, without its share."""
    return nn.functional.pad(scores, (0, 1)).softmax(-1)[..., :-1]


def _key_bias(valid: Tensor, size: Tensor | None, dtype: torch.dtype) -> Tensor:
    """float [B, 1, 1, N]: log(size) of live keys, the lowest number for the others."""
    bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
    if size is not None:
        bias = torch.where(valid, size, torch.ones_like(size)).log().to(dtype)
    return bias.masked_fill(~valid, torch.finfo(dtype).min)[:, None, None, :]


def _causal(key_bias: Tensor, start: int, rows: int) -> Tensor:
    """float [B, 1, rows, N]: `key_bias`, and the lowest number for the keys after each query from place `start`."""
    keys = torch.arange(key_bias.shape[-1], device=key_bias.device)
    later = keys > torch.arange(start, start + rows, device=key_bias.device).unsqueeze(1)
    return key_bias.masked_fill(later, torch.finfo(key_bias.dtype).min)


def _value_counts(valid: Tensor, share: float) -> Tensor | None:
    """int64 [B]: value rows that each query keeps, floor(live keys x share) and at least 1; None where it keeps all."""
    if share >= 1.0:
        return None
    return torch.tensor([kept_values(int(live), share) for live in valid.sum(-1)], device=valid.device)


def kept_values(keys: int, share: float) -> int:
    """Value rows that a query over `keys` live keys keeps: floor(keys x share), at least 1; the share is decimal."""
    return max(1, math.floor(Fraction(str(share)) * keys))


def largest(probability: Tensor, counts: Tensor) -> Tensor:
    """bool [B, H, R, N]: the `counts` (int64 [B]) largest of each row; of equal ones the lowest index wins."""
    place = (counts - 1)[:, None, None, None].expand(*probability.shape[:3], 1)
    limit = probability.sort(dim=-1, descending=True).values.gather(-1, place)
    above = probability > limit
    equal = probability == limit
    quota = counts[:, None, None, None] - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= quota))


class _Tap:
    """Collects the signals that are read off the probabilities, block by block."""

    def __init__(self, needs: frozenset[Signal], valid: Tensor, live: Tensor, dtype: torch.dtype) -> None:
        self._dtype = torch.promote_types(dtype, torch.float32)
        self._live = live  # bool [B, H, N]
        self._valid = valid
        # int64 [B]: the first live token, the CLS token while it lives; and the last one.
        first = valid.to(torch.int8).argmax(-1)
        last = valid.shape[1] - 1 - valid.flip(-1).to(torch.int8).argmax(-1)
        self._picked = {Signal.ATTENTION_CLS_ROW: first, Signal.ATTENTION_LAST_ROW: last}
        self.signals = {
            signal: torch.zeros(live.shape, dtype=self._dtype, device=live.device)
            for signal in sorted(needs & ROW_SIGNALS)
        }

    def add(self, probability: Tensor, start: int) -> None:
        """`probability` float [B, H, R, N] of the queries from `start`."""
        stop = start + probability.shape[2]
        if Signal.ATTENTION_COLUMN_SUM in self.signals:
            live_rows = self._live[:, :, start:stop, None]
            self.signals[Signal.ATTENTION_COLUMN_SUM] += (probability * live_rows).sum(2)
        if Signal.ATTENTION_DIAGONAL in self.signals:
            diagonal = probability[..., start:stop].diagonal(dim1=2, dim2=3)
            self.signals[Signal.ATTENTION_DIAGONAL][:, :, start:stop] = diagonal * self._live[:, :, start:stop]
        for signal, row in self._picked.items():
            if signal in self.signals:
                batch = ((row >= start) & (row < stop)).nonzero().flatten()
                rows = probability[batch, :, row[batch] - start]
                heads = self._live[batch].any(-1, keepdim=True)
                self.signals[signal][batch] = (rows * heads).to(self._dtype)

    def take(self, query: Tensor, key: Tensor, summed: Summed, scaling: float, causal: bool) -> None:
        """All rows at once, from what a kernel summed; query, key float [B, H, N, d]."""
        if Signal.ATTENTION_COLUMN_SUM in self.signals:
            heads = self._live.any(-1, keepdim=True)
            self.signals[Signal.ATTENTION_COLUMN_SUM] += summed.column_sum * heads
        if Signal.ATTENTION_DIAGONAL in self.signals:
            own = diagonal(query, key, summed.log_sum_exp, scaling)
            self.signals[Signal.ATTENTION_DIAGONAL] += own.masked_fill(~self._live, 0)
        every = torch.arange(len(query), device=query.device)
        for signal, row in self._picked.items():
            if signal in self.signals:
                allowed = self._valid[:, None, None, :]
                if causal:
                    later = torch.arange(key.shape[2], device=key.device) > row.unsqueeze(1)
                    allowed = allowed & ~later[:, None, None, :]
                picked = query[every, :, row].unsqueeze(2)
                lse = summed.log_sum_exp[every, :, row].unsqueeze(2)
                rows = probability_rows(picked, key, lse, allowed, scaling)[:, :, 0]
                self.signals[signal] += rows * self._live.any(-1, keepdim=True)

    def head_sum(self, output: Tensor) -> Tensor:
        """float [B, H]: absolute sums of `output` [B, H, N, d] over the live rows."""
        return (output.abs() * self._valid[:, None, :, None]).sum(dim=(2, 3), dtype=self._dtype)
