"""`TokenRecycling`: draft a tree of tokens from what the model's earlier logits ranked behind each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from topsieve.transforms.decoder import VOCABULARY, ByteDecoder, byte_decoder, chosen_rows, fits, picks, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.tree import Tree
from topsieve.transforms.workload import OUTSIDE, Pass, Workload, exact_topk, generation
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Gather

# Children of each node, breadth first, of the published static tree "2.2.2": 80 nodes below the root, 40 leaves.
PUBLISHED_TREE = Tree(
    (
        8,  # root
        *(8, 4, 3, 2, 1, 1, 1, 1),
        *(8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0),
        *(5, 2, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1),
        *(0, 0, 3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0),
        *(2, 0, 0, 1),
    )
)
INDEX_BITS = 64


@dataclass(frozen=True)
class Step:
    """One step: keys that the tree's rows could see, and tokens accepted (the root and what matched behind it)."""

    keys: int
    accepted: int


def draft(adjacency: NDArray[np.int64], root: int, tree: Tree) -> NDArray[np.int64]:
    """int64 [nodes]: token of each node, `adjacency[token of the parent, rank]`, from int64 [V, ranks]."""
    tokens = np.empty(tree.nodes, np.int64)
    tokens[0] = root
    for node in range(1, tree.nodes):
        tokens[node] = adjacency[tokens[tree.parents[node]], tree.ranks[node]]
    return tokens


def verify(tokens: NDArray[np.int64], picked: NDArray[np.int64], tree: Tree) -> tuple[int, ...]:
    """The accepted nodes, root first: the first longest run of matches from the root among the paths to the leaves.

    A node matches where its token is the one the model `picked` (int64 [nodes]) behind its parent.
    """
    best: tuple[int, ...] = (0,)
    for path in tree.paths:
        length = 1
        while length < len(path) and tokens[path[length]] == picked[path[length - 1]]:
            length += 1
        if length > len(best):
            best = path[:length]
    return best


def update(adjacency: NDArray[np.int64], tokens: NDArray[np.int64], ranked: NDArray[np.int64]) -> None:
    """Write each node's best next tokens, int64 [nodes, ranks], behind its token; of equal tokens the last node's stay."""
    for token, row in zip(tokens, ranked, strict=True):
        adjacency[token] = row


def decode(
    decoder: ByteDecoder, prompt: Sequence[int], count: int, adjacency: NDArray[np.int64], tree: Tree
) -> tuple[list[int], list[Step]]:
    """`count` tokens behind `prompt`, equal to greedy decoding; `adjacency` int64 [V, ranks] goes on from request to request."""
    cache, steps = decoder.fresh(), []
    out: list[int] = []
    if len(prompt) > 1:
        decoder.forward(torch.tensor([prompt[:-1]]), cache)
    root, prefix = int(prompt[-1]), len(prompt) - 1
    depths, tree_mask = torch.from_numpy(tree.depths), torch.from_numpy(tree.mask)
    while True:
        tokens = draft(adjacency, root, tree)
        seen = torch.cat((torch.ones(tree.nodes, prefix, dtype=torch.bool), tree_mask), 1)[None]
        logits = decoder.forward(torch.from_numpy(tokens)[None], cache, positions=prefix + depths[None], visible=seen)[
            0
        ]
        path = verify(tokens, logits.argmax(-1).numpy(), tree)
        chosen_rows(cache, torch.cat((torch.arange(prefix), prefix + torch.tensor(path))))
        steps.append(Step(prefix + tree.nodes, len(path)))
        root, prefix = int(logits[path[-1]].argmax()), prefix + len(path)
        out += [*tokens[list(path[1:])].tolist(), root]
        if len(out) >= count:
            return out[:count], steps
        # A stable descending sort: of equal logits the lowest token comes first.
        ranked = logits.sort(stable=True, dim=-1, descending=True).indices[:, : adjacency.shape[1]]
        update(adjacency, tokens, ranked.numpy())


@dataclass(frozen=True)
class TokenRecycling(Transform):
    """Token Recycling: a tree of 81 tokens a step, drafted from the logits of earlier steps.

    Luo et al., ACL 2025; specification `methods-text`, section 11. The eight best tokens behind every token that ran are
    kept in a matrix of indices, shared by all requests; a static tree of them is verified in one pass with a mask of
    ancestors, and the cache keeps the longest path on which the model agrees. The text equals greedy decoding.

    Where two nodes hold the same token, the later node's ranking stays (the published code leaves it to the device).

    Parameters
    ----------
    sequences : prompts, windows of held-out text; one matrix serves them one after the other.
    prompt : bytes of each. new_tokens : bytes to generate behind each.
    seed : draws the windows.
    """

    name: ClassVar[str] = "token-recycling"
    attention: ClassVar[str] = "81 tree nodes a step instead of one query"

    sequences: int = 4
    prompt: int = 192
    new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(sequences=self.sequences, prompt=self.prompt, new_tokens=self.new_tokens)
        depth = int(PUBLISHED_TREE.depths.max())
        self.need("new_tokens", fits(self.prompt, self.new_tokens + 2 * depth), "what the model's positions hold")

    def run(self) -> Outcome:
        tree, decoder = PUBLISHED_TREE, byte_decoder()
        adjacency = np.zeros((VOCABULARY, tree.children[0]), np.int64)
        passes: list[Pass] = []
        plain: list[Pass] = []
        taken: list[Step] = []
        one = picks(decoder.shape, 1)
        for sequence, prompt in enumerate(prompts(self.sequences, self.prompt, self.seed)):
            _, steps = decode(decoder, prompt, self.new_tokens, adjacency, tree)
            taken += steps
            head = generation(decoder.shape, self.prompt, 0, sequence=sequence)
            passes += [*head, *self._passes(decoder, steps, sequence)]
            plain += generation(decoder.shape, self.prompt, self.new_tokens, sequence=sequence, work=one)
        accepted = sum(step.accepted for step in taken) / len(taken)
        visible, computed = int(tree.mask.sum()), tree.nodes * (tree.nodes + 1) // 2
        facts = {
            "tokens_per_step": accepted,
            "steps": len(taken),
            "tree_nodes": tree.nodes,
            "visible_tree_entries": visible,
            "computed_tree_entries": computed,
        }
        effect = f"{accepted:.2f} tokens a step; {visible} of {computed} computed tree entries are used"
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "greedy"), facts, effect)

    def _passes(self, decoder: ByteDecoder, steps: Sequence[Step], sequence: int) -> list[Pass]:
        shape, nodes, ranks = decoder.shape, PUBLISHED_TREE.nodes, PUBLISHED_TREE.children[0]
        return [
            Pass(
                shape=shape,
                queries=nodes,
                keys=step.keys,
                sequence=sequence,
                step=number,
                work=self._work(shape.width, shape.layers, nodes, ranks, step.accepted)
                + picks(shape, nodes)
                + (exact_topk(VOCABULARY, ranks, repeats=nodes) if number < len(steps) else ()),
            )
            for number, step in enumerate(steps, 1)
        ]

    def _work(self, width: int, layers: int, nodes: int, ranks: int, accepted: int) -> tuple[Op, ...]:
        """Tree look-ups, and the accepted rows' keys and values moved behind the prefix."""
        return (
            Gather(layer=OUTSIDE, rows=nodes - 1, width=1, bits=INDEX_BITS),
            Gather(layer=OUTSIDE, rows=accepted * layers, width=2 * width, bits=16),
        )
