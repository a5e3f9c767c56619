"""`KeptLayer`: one layer of a Hugging Face cache whose slots can be removed and merged, head by head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from topsieve.reduction.reduction import Reduction


class KeptLayer(DynamicLayer):
    """Keys and values of the slots that are left. The model around it still counts the tokens it has seen.

    Sequence length and mask sizes are those of the whole sequence, so positions and masks of the model stay right
    whatever was removed. Each slot knows its column. Where rows differ in length only live slots are stored.

    seen : tokens the layer has been given, padding included.
    columns : int64 [R, N], column of each slot in the padded sequence. occupied : bool [R, N]. size : float [R, N].
    states : float [R, N, ...] by stage; memory : float [R, ...] by stage and name.
    channels : int64 [R, d'], key channels of the first `narrow_slots` slots; None where all channels are stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False
        self.seen = 0
        self.columns = torch.empty(0)
        self.occupied = torch.empty(0)
        self.size = torch.empty(0)
        self.states: dict[int, Tensor] = {}
        self.memory: dict[int, dict[str, Tensor]] = {}
        self.channels: Tensor | None = None
        self.narrow_keys: Tensor | None = None
        self.reduced = False
        self._packed = False
        self._heads = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append; returns keys and values of all slots, [B, KV, N, d], empty slots as zeros."""
        batch, heads, tokens, _ = key_states.shape
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._heads = heads
            self.columns = torch.empty((batch * heads, 0), dtype=torch.int64, device=key_states.device)
            self.occupied = self.columns.to(torch.bool)
            self.size = self.columns.to(torch.float32)
        new = torch.arange(self.seen, self.seen + tokens, device=key_states.device)
        old = self.whole()
        keys = key_states if old is None else torch.cat([old[0], key_states], dim=-2)
        values = value_states if old is None else torch.cat([old[1], value_states], dim=-2)
        ones = torch.ones((batch * heads, tokens), device=key_states.device)
        self.columns = torch.cat([self.columns, new.expand(batch * heads, tokens)], dim=1)
        self.occupied = torch.cat([self.occupied, ones.bool()], dim=1)
        self.size = torch.cat([self.size, ones], dim=1)
        self.states = {
            stage: torch.cat([state, state.new_zeros(state.shape[0], tokens, *state.shape[2:])], dim=1)
            for stage, state in self.states.items()
        }
        self.seen += tokens
        self._store(keys, values)
        return keys, values

    def whole(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values of all slots, float [B, KV, N, d]; None before the first update."""
        if not self.seen:
            return None
        keys, values = self.keys, self.values
        if self._packed:
            keys, values = self._spread(keys), self._spread(values)
        if self.channels is not None and self.narrow_keys is not None:
            narrow = self._widened(self.narrow_keys, values.shape[-1])
            keys = torch.cat([narrow, keys], dim=2)
        return keys, values

    def settle(self, columns: Tensor, valid: Tensor, size: Tensor, seen: int) -> None:
        """Say what the slots of a prompt are, which was reduced before it came here.

        Parameters
        ----------
        columns : int64 [B, N]. valid : bool [B, N], slots that hold a token. size : float [B, N].
        seen : columns of the whole prompt.
        """
        keys, values = self.keys, self.values
        whole = columns.shape[1] == seen and bool(
            (columns == torch.arange(seen, device=columns.device)).masked_fill(~valid, True).all()
        )
        self.seen = seen
        if whole and bool((size == 1).masked_fill(~valid, True).all()):
            return
        self.columns, self.occupied, self.size = (
            x.repeat_interleave(self._heads, 0) for x in (columns, valid, size.to(torch.float32))
        )
        self.reduced = True
        self._store(keys, values)

    def reduce(self, reduction: Reduction) -> None:
        """Keep what `reduction` (rows R, slots N) keeps, merged as its maps say.

        Raises
        ------
        ValueError
            channels of keys were removed before: slots cannot go any more.
        """
        if self.channels is not None:
            raise ValueError("slots of keys without all channels cannot be removed")
        whole = self.whole()
        assert whole is not None
        keys, values = (reduction.apply(x.flatten(0, 1), role) for x, role in zip(whole, "kv", strict=True))
        self.columns = reduction.gather(self.columns, fill=-1)
        self.occupied = reduction.valid
        self.size = reduction.size.to(self.size.dtype)
        # Merges that add up what was observed say so; else a slot goes on with what it had itself.
        moved = reduction.apply if "state" in reduction.maps else None
        self.states = {
            stage: reduction.gather(state) if moved is None else moved(state, "state")
            for stage, state in self.states.items()
        }
        self.reduced = True
        self._store(keys.unflatten(0, (-1, self._heads)), values.unflatten(0, (-1, self._heads)))

    def release(self) -> None:
        """Give up all slots; the layer will not be read again."""
        if self.is_initialized:
            whole = self.whole()
            assert whole is not None
            self.columns, self.occupied, self.size = self.columns[:, :0], self.occupied[:, :0], self.size[:, :0]
            self.states = {}
            self.keys, self.values = (x[:, :, :0].clone() for x in whole)
            self.channels = self.narrow_keys = None
            self._packed = False

    def narrow(self, channels: Tensor, whole_slots: int) -> None:
        """Keep only `channels` (int64 [R, d']) of the keys of all but the newest `whole_slots` slots."""
        whole = self.whole()
        assert whole is not None
        keys, values = whole
        slots = keys.shape[2] - whole_slots
        index = channels.unflatten(0, (-1, self._heads)).unsqueeze(2).expand(-1, -1, slots, -1)
        self.narrow_keys = keys[:, :, :slots].gather(3, index)
        self.channels = channels
        self.reduced = True
        self._store(keys, values)

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are held."""
        held = [x for x in (self.keys, self.values, self.narrow_keys) if x is not None]
        return sum(x.numel() * x.element_size() for x in held)

    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("a reduced cache cannot be cropped: what was removed is gone")

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._choose(torch.arange(len(self.columns) // self._heads).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._choose(indices)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._choose(beam_idx)

    def _choose(self, sequences: Tensor) -> None:
        """Keep the sequences of these numbers, in this order."""
        whole = self.whole()
        if whole is None:
            return
        sequences = sequences.to(self.columns.device)
        rows = (sequences.unsqueeze(1) * self._heads + torch.arange(self._heads, device=sequences.device)).flatten()
        self.columns, self.occupied, self.size = self.columns[rows], self.occupied[rows], self.size[rows]
        self.states = {stage: state[rows] for stage, state in self.states.items()}
        self.memory = {stage: {name: x[rows] for name, x in named.items()} for stage, named in self.memory.items()}
        if self.narrow_keys is not None and self.channels is not None:
            self.narrow_keys, self.channels = self.narrow_keys[sequences], self.channels[rows]
        self._store(whole[0][sequences], whole[1][sequences])

    def _store(self, keys: Tensor, values: Tensor) -> None:
        """Take [B, KV, N, d]; what is empty is not stored."""
        narrow = 0 if self.narrow_keys is None else self.narrow_keys.shape[2]
        keys = keys[:, :, narrow:]
        self._packed = self.reduced and not narrow and not bool(self.occupied.all())
        if self._packed:
            place = self.occupied.unflatten(0, (-1, self._heads))
            keys, values = keys[place], values[place]
        # A slice would hold on to the whole tensor it was cut from.
        self.keys = keys.clone() if keys._base is not None else keys
        self.values = values

    def _spread(self, packed: Tensor) -> Tensor:
        place = self.occupied.unflatten(0, (-1, self._heads))
        spread = packed.new_zeros((*place.shape, packed.shape[-1]))
        spread[place] = packed
        return spread

    def _widened(self, narrow: Tensor, width: int) -> Tensor:
        """Keys with zeros in the channels that were removed."""
        assert self.channels is not None
        index = self.channels.unflatten(0, (-1, self._heads)).unsqueeze(2).expand(narrow.shape)
        return narrow.new_zeros((*narrow.shape[:3], width)).scatter(3, index, narrow)
