"""Jobs of real models on real text: layers of MiniLM over sentences, steps of byte-gpt's decoding over a growing cache."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch

import topsieve
from topsieve.bit_plans import Operands, minilm_operands
from topsieve.subjects.byte_gpt.model import load_byte_gpt
from topsieve.subjects.byte_gpt.text import reference
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine.job import Job, LayerJob, build_job
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES
from topsieve_sim.golden.attention import quantise_operands
from topsieve_sim.golden.descriptor import Descriptor, Flag, encode_descriptor
from topsieve_sim.timing.operand_layout import page_aligned

MINILM_LAYERS = 6
# All heads of a layer, tokens and heads chosen by the machine, a report at the end.
SENTENCE = (
    Flag.PROGRESSIVE | Flag.LIVE_TOKENS | Flag.LIVE_QUERIES | Flag.LIVE_HEADS | Flag.ACCUMULATE_TOKENS
    | Flag.ACCUMULATE_HEADS | Flag.CLEAR_IMPORTANCE | Flag.RESET_TOKENS | Flag.RESET_HEADS | Flag.PRUNE_TOKENS
    | Flag.PRUNE_HEADS | Flag.REPORT
)  # fmt: skip
# The cascade of one step of decoding: the first layer sees every token, each layer prunes for the next.
STEP = Flag.PROGRESSIVE | Flag.LIVE_TOKENS | Flag.ACCUMULATE_TOKENS | Flag.ACCUMULATE_HEADS | Flag.PRUNE_TOKENS
FIRST_LAYER = Flag.CLEAR_IMPORTANCE | Flag.RESET_TOKENS | Flag.RESET_HEADS
KEPT_TOKENS, KEPT_VALUES = 0.75, 0.5


@cache
def sentences(count: int) -> list[list[Operands]]:
    """Operands of `count` pieces of text, each with a line a layer."""
    flat = minilm_operands(count)
    return [flat[sentence::count] for sentence in range(count)]


def sentence_job(config: AcceleratorConfig, layers: list[Operands], number: int) -> Job:
    """One layer of MiniLM, the layers in turn; half of the tokens and a quarter of the heads are pruned after it."""
    operands = layers[number % MINILM_LAYERS]
    heads, tokens, _ = operands.query.shape
    layer = LayerJob(
        operands=quantise_operands(*operands, config.formats),
        flags=SENTENCE,
        keep_tokens=tokens // 2,
        keep_heads=heads * 3 // 4,
    )
    return build_job(config, [layer])


@cache
def byte_gpt_operands(tokens: int, group: int) -> list[Operands]:
    """Each layer's queries, keys and values over text that byte-gpt has never seen.

    With `group` > 1 that many query heads share the mean of their keys and values, as a model is turned into one with
    grouped queries (Ainslie et al. 2023, section 2.1).
    """
    text = torch.tensor(list(reference(held_out=True)[:tokens]))[None]
    model = load_byte_gpt()
    with torch.inference_mode(), topsieve.reduce(model, "dense", operands=True) as reduced:
        model(input_ids=text)
    (layers,) = reduced.record.passes
    found = []
    for layer in layers:
        query, key, value = (part.double().numpy() for part in (layer.query[:, 0], layer.key, layer.value))
        heads, _, head_dim = key.shape
        key, value = (part.reshape(heads // group, group, tokens, head_dim).mean(1) for part in (key, value))
        found.append(Operands(query, key, value))
    return found


def decoding_job(config: AcceleratorConfig, layers: list[Operands], steps: int) -> Job:
    """The last `steps` tokens one by one: a descriptor a layer and step, one query a head, the cache a row longer each step.

    Keys and values stand in memory once, as in a cache; a step sees those of its own token and all before.
    """
    tokens = layers[0].key.shape[1]
    dense = build_job(config, [LayerJob(operands=quantise_operands(*layer, config.formats)) for layer in layers])
    descriptors: list[Descriptor] = []
    for seen in range(tokens - steps + 1, tokens + 1):
        live = seen
        for number, layer in enumerate(dense.descriptors):
            keep = max(1, int(live * KEPT_TOKENS))
            row = seen - 1
            descriptors.append(
                dataclasses.replace(
                    layer,
                    flags=STEP | (FIRST_LAYER if number == 0 else Flag(0)),
                    keys=seen,
                    queries=1,
                    query=layer.query + row * layer.query_row_bytes,
                    output=layer.output + row * layer.output_row_bytes,
                    kept_values=max(1, int(live * KEPT_VALUES)),
                    keep_tokens=keep,
                )
            )
            live = keep
    descriptors[-1] = dataclasses.replace(descriptors[-1], flags=descriptors[-1].flags | Flag.LAST | Flag.REPORT)
    image = bytearray(dense.image)
    image += bytes(page_aligned(len(image)) - len(image))
    table = len(image)
    size = DESCRIPTOR_BYTES * len(descriptors)
    # Behind the table: the report of the last step.
    descriptors[-1] = dataclasses.replace(descriptors[-1], report=table + size)
    image += b"".join(map(encode_descriptor, descriptors)) + bytes(8 * (1 + config.capacity + config.importance.heads))
    image += bytes(-len(image) % config.memory.bytes_per_cycle)
    return dataclasses.replace(
        dense, image=bytes(image), descriptor_address=table, descriptors=tuple(descriptors), output_shapes=()
    )
