"""Learn Your Tokens: a model that pools the characters of each word into a few vectors and spells the next word from them.

Specification `methods-text`, section 10. `topsieve.compaction.word_work` says what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

INITIAL_STANDARD_DEVIATION = 0.02
PAD = 0


@dataclass(frozen=True)
class WordModelSizes:
    """The sizes of the training script of the published code; its class has 12 layers of 4 heads, width 768, 128 words.

    Parameters
    ----------
    vocabulary : characters, id 0 (padding) included.
    prefix : p, vectors a word is pooled into.
    canvas : c0, characters a word is padded to.
    words : of a block.
    layers, heads, width : of the model over word vectors; the speller has its heads.
    encoder_layers, encoder_heads, encoder_hidden : of the model inside words.
    speller_layers : of the decoder that spells.
    """

    vocabulary: int
    prefix: int = 4
    canvas: int = 12
    words: int = 192
    layers: int = 8
    heads: int = 8
    width: int = 512
    encoder_layers: int = 2
    encoder_heads: int = 4
    encoder_hidden: int = 2048
    speller_layers: int = 2

    @property
    def places(self) -> int:
        """c = p + c0, rows of a word inside the encoder and the speller."""
        return self.prefix + self.canvas


class Block(nn.Module):
    """One layer, its attention written out.

    Parameters
    ----------
    normed_first : LayerNorm in front of attention and FFN, with GELU (tanh form), as in minGPT; else behind the residual,
        with ReLU, as in `torch.nn.TransformerEncoderLayer`.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, normed_first: bool) -> None:
        super().__init__()
        self.heads, self.normed_first = heads, normed_first
        self.norm_attention, self.norm_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation: nn.Module = nn.GELU(approximate="tanh") if normed_first else nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, forbidden: Tensor) -> Tensor:
        """[B, N, D] of [B, N, D]; `forbidden` bool [..., N, N], query rows, of what is not seen."""
        if self.normed_first:
            x = x + self._attend(self.norm_attention(x), forbidden)
            return x + self._feed(self.norm_ffn(x))
        x = self.norm_attention(x + self._attend(x, forbidden))
        normed: Tensor = self.norm_ffn(x + self._feed(x))
        return normed

    def _attend(self, x: Tensor, forbidden: Tensor) -> Tensor:
        query, key, value = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        probability = scores.masked_fill(forbidden.unsqueeze(-3), float("-inf")).softmax(-1)
        output: Tensor = self.out((self.dropout(probability) @ value).transpose(1, 2).flatten(2))
        return self.dropout(output)

    def _feed(self, x: Tensor) -> Tensor:
        output: Tensor = self.dropout(self.down(self.dropout(self.activation(self.up(x)))))
        return output


class WordModel(nn.Module):
    """Encoder inside words, causal model over word vectors, speller of the next word.

    Without training it knows nothing; weights are loaded with `load_state_dict`.

    Parameters
    ----------
    variant : "paper": words are told from padding exactly, the prefix has rows of its own in the embedding, and
        positions are added once. "official": as in the published code, the first padding of a word counts as a
        character, characters see padding (only padding does not see padding), the prefix takes the rows c0 ... of the
        characters, and the speller adds positions a second time.
    """

    def __init__(
        self, sizes: WordModelSizes, *, variant: Literal["paper", "official"] = "paper", dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.sizes, self.variant = sizes, variant
        width, layer = sizes.width, {"dropout": dropout}
        self.embedding = nn.Embedding(sizes.vocabulary + sizes.prefix, width)
        self.inside = nn.Parameter(torch.zeros(sizes.places, width))  # positions inside a word
        self.between = nn.Parameter(torch.zeros(sizes.words * sizes.prefix, width))
        self.encoder = nn.ModuleList(
            Block(width, sizes.encoder_heads, sizes.encoder_hidden, **layer, normed_first=False)
            for _ in range(sizes.encoder_layers)
        )
        self.model, self.speller = (
            nn.ModuleList(Block(width, sizes.heads, 4 * width, **layer, normed_first=True) for _ in range(count))
            for count in (sizes.layers, sizes.speller_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sizes.vocabulary, bias=False)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0, INITIAL_STANDARD_DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """Scores of the characters of words 2 to t, float [b, t - 1, c0, V].

        Parameters
        ----------
        characters : int64 [b, t, c0], 0 behind a word's end. lengths : int64 [b, t].
        """
        embedded = self.embedded(characters)
        words = self.word_vectors(embedded, lengths)
        return self.spelled(embedded[:, 1:], words[:, :-1])

    def embedded(self, characters: Tensor) -> Tensor:
        """[b, t, c, D]: prefix and characters with their positions inside the word."""
        sizes = self.sizes
        first = sizes.canvas if self.variant == "official" else sizes.vocabulary
        prefix = torch.arange(first, first + sizes.prefix, device=characters.device)
        ids = torch.cat([prefix.expand(*characters.shape[:2], -1), characters], dim=-1)
        dropped: Tensor = self.dropout(self.embedding(ids) + self.inside)
        return dropped

    def word_vectors(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """[b, t, p, D]: what the model over word vectors puts out at each of them."""
        sizes = self.sizes
        batch, words = embedded.shape[:2]
        x = embedded.flatten(0, 1)
        forbidden = self.forbidden(lengths.flatten())
        for block in self.encoder:
            x = block(x, forbidden)
        x = x[:, : sizes.prefix].reshape(batch, words * sizes.prefix, -1)
        x = self.dropout(x + self.between[: words * sizes.prefix])
        later = later_places(x.shape[1], x.device)
        for block in self.model:
            x = block(x, later)
        normed: Tensor = self.norm(x)
        return normed.unflatten(1, (words, sizes.prefix))

    def spelled(self, embedded: Tensor, words: Tensor) -> Tensor:
        """float [b, t, c0, V]: scores of each character of the words `embedded` [b, t, c, D], given the words before.

        Parameters
        ----------
        words : float [b, t, p, D], of the word before each.
        """
        sizes = self.sizes
        x = torch.cat([words, embedded[:, :, sizes.prefix :]], dim=2)
        if self.variant == "official":
            x = x + self.inside
        else:
            # The characters have theirs; the vectors that took the prefix's place have none yet.
            x = x + nn.functional.pad(self.inside[: sizes.prefix], (0, 0, 0, sizes.canvas))
        x = self.dropout(x).flatten(0, 1)
        later = later_places(sizes.places, x.device)
        for block in self.speller:
            x = block(x, later)
        scores: Tensor = self.head(x[:, sizes.prefix - 1 : -1])
        return scores.unflatten(0, embedded.shape[:2])

    def forbidden(self, lengths: Tensor) -> Tensor:
        """bool [w, c, c]: what the rows of words of `lengths` (int64 [w]) do not see."""
        end = (lengths + self.sizes.prefix).unsqueeze(-1)
        place = torch.arange(self.sizes.places, device=lengths.device)
        if self.variant == "official":
            padding = place > end
            return padding.unsqueeze(2) & padding.unsqueeze(1)
        return (place >= end).unsqueeze(1).expand(-1, self.sizes.places, -1)

    @torch.no_grad()
    def next_word(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """int64 [b, c0]: the likeliest characters of the word behind `characters` [b, t, c0], one after the other."""
        last = self.word_vectors(self.embedded(characters), lengths)[:, -1:]
        word = torch.full((len(characters), 1, self.sizes.canvas), PAD, device=characters.device)
        for place in range(self.sizes.canvas):
            word[:, 0, place] = self.spelled(self.embedded(word), last)[:, 0, place].argmax(-1)
        return word[:, 0]


def later_places(tokens: int, device: torch.device) -> Tensor:
    """bool [N, N]: what a causal row does not see."""
    return torch.ones((tokens, tokens), dtype=torch.bool, device=device).triu(1)


def spelling_loss(scores: Tensor, characters: Tensor) -> Tensor:
    """Mean cross-entropy, nats a place, of the words behind the first; padding counts, as in the published code."""
    return nn.functional.cross_entropy(scores.flatten(0, 2), characters[:, 1:].flatten())


def words_of(text: bytes, canvas: int) -> list[bytes]:
    """The words of `text` between white space; longer ones than `canvas` are cut into pieces of it."""
    return [word[start : start + canvas] for word in text.split() for start in range(0, len(word), canvas)]


def padded_words(words: Sequence[bytes], canvas: int) -> tuple[Tensor, Tensor]:
    """Characters int64 [t, c0], byte + 1 and 0 behind the end, and lengths int64 [t]."""
    rows = [[byte + 1 for byte in word] + [PAD] * (canvas - len(word)) for word in words]
    return torch.tensor(rows), torch.tensor([len(word) for word in words])
