"""What Learn Your Tokens costs: three stages of attention in place of one over all characters.

Specification `methods-text`, section 10. Word boundaries come with the text, so nothing is selected; pooling is the
encoder's attention, and its result a gather of the words' first rows. Layers are numbered encoder, model, speller.
"""

from __future__ import annotations

from collections.abc import Iterator

from topsieve.compaction.word_pooling import WordModelSizes
from topsieve.reduction.reducers.kept_rows import HIDDEN_BITS
from topsieve_sim.trace import Op, Trace
from topsieve_sim.trace.ops import FeedForward, Gather, ProbabilityValue, Projection, QueryKey, Softmax


def read_trace(sizes: WordModelSizes, words: int, sequences: int = 1) -> Trace:
    """The forward pass of training over `words` words a sequence."""
    ops: list[Op] = []
    for sequence in range(sequences):
        ops += _encoded(sizes, words, sequence, 0)
        rows = words * sizes.prefix
        for layer in _model_layers(sizes):
            ops += _layer(sizes, layer, sequence, 0, (1, rows, rows), sizes.heads, 4 * sizes.width, causal=True)
        spelled, places = words - 1, sizes.places
        for layer in _speller_layers(sizes) if spelled else ():
            shape = (spelled, places, places)
            ops += _layer(sizes, layer, sequence, 0, shape, sizes.heads, 4 * sizes.width, causal=True)
        if spelled:
            ops.append(_head(sizes, spelled * sizes.canvas, sequence, 0))
    return _trace(sizes, ops)


def generated_trace(sizes: WordModelSizes, words: int, new_words: int = 1) -> Trace:
    """`new_words` words behind a text of `words`, with keys and values kept.

    A step is one word: the word before it goes through the encoder and, as p rows, the model; then the speller reads
    the p vectors and spells c0 characters one by one. The text is step 0, its last word included.
    """
    ops: list[Op] = []
    for step in range(new_words):
        fresh = words if step == 0 else 1
        ops += _encoded(sizes, fresh, 0, step)
        queries, keys = fresh * sizes.prefix, (words + step) * sizes.prefix
        for layer in _model_layers(sizes):
            ops += _layer(sizes, layer, 0, step, (1, queries, keys), sizes.heads, 4 * sizes.width, causal=True)
        for place in range(sizes.canvas):
            # The first character is read off the vectors' last row, each further one off the character before.
            rows = sizes.prefix if place == 0 else 1
            for layer in _speller_layers(sizes):
                shape = (1, rows, sizes.prefix + place)
                ops += _layer(sizes, layer, 0, step, shape, sizes.heads, 4 * sizes.width, causal=rows > 1)
            ops.append(_head(sizes, 1, 0, step))
    return _trace(sizes, ops)


def character_trace(sizes: WordModelSizes, characters: int) -> Trace:
    """The model alone over `characters` characters, what pooling is compared with."""
    ops: list[Op] = []
    for layer in range(sizes.layers):
        shape = (1, characters, characters)
        ops += _layer(sizes, layer, 0, 0, shape, sizes.heads, 4 * sizes.width, causal=True)
    head = Projection(layer=-1, tokens=characters, inputs=sizes.width, outputs=sizes.vocabulary, role="other")
    return Trace((*ops, head), {}, model="characters", method="dense", layers=sizes.layers, heads=sizes.heads)


def _model_layers(sizes: WordModelSizes) -> range:
    return range(sizes.encoder_layers, sizes.encoder_layers + sizes.layers)


def _speller_layers(sizes: WordModelSizes) -> range:
    first = sizes.encoder_layers + sizes.layers
    return range(first, first + sizes.speller_layers)


def _encoded(sizes: WordModelSizes, words: int, sequence: int, step: int) -> Iterator[Op]:
    """Words as so many small problems, and the gather of their prefix rows."""
    for layer in range(sizes.encoder_layers):
        shape = (words, sizes.places, sizes.places)
        yield from _layer(sizes, layer, sequence, step, shape, sizes.encoder_heads, sizes.encoder_hidden, causal=False)
    yield Gather(
        layer=sizes.encoder_layers - 1,
        sequence=sequence,
        step=step,
        rows=words * sizes.prefix,
        width=sizes.width,
        bits=HIDDEN_BITS,
    )


def _layer(
    sizes: WordModelSizes,
    layer: int,
    sequence: int,
    step: int,
    shape: tuple[int, int, int],
    heads: int,
    hidden: int,
    *,
    causal: bool,
) -> Iterator[Op]:
    """One layer over `shape`: independent problems, query rows and keys of each. Problems stand as heads."""
    problems, queries, keys = shape
    place = {"layer": layer, "sequence": sequence, "step": step}
    rows, width = problems * queries, sizes.width
    attention = {"heads": heads * problems, "kv_heads": heads * problems, "queries": queries, "keys": keys}
    head_dim = width // heads
    yield Projection(**place, tokens=rows, inputs=width, outputs=3 * width, role="qkv")
    yield QueryKey(**place, **attention, head_dim=head_dim, causal=causal)
    yield Softmax(**place, heads=heads * problems, rows=queries, cols=keys)
    yield ProbabilityValue(**place, **attention, kept=keys, head_dim=head_dim)
    yield Projection(**place, tokens=rows, inputs=width, outputs=width, role="o")
    yield FeedForward(**place, tokens=rows, width=width, hidden=hidden)


def _head(sizes: WordModelSizes, rows: int, sequence: int, step: int) -> Op:
    return Projection(
        layer=-1, sequence=sequence, step=step, tokens=rows, inputs=sizes.width, outputs=sizes.vocabulary, role="other"
    )


def _trace(sizes: WordModelSizes, ops: list[Op]) -> Trace:
    layers = sizes.encoder_layers + sizes.layers + sizes.speller_layers
    return Trace(tuple(ops), {}, model="word-model", method="learn-your-tokens", layers=layers, heads=sizes.heads)
