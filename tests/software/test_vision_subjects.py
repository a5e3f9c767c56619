"""The trained models for images: their data, their accuracy, and that methods separate on them."""

from __future__ import annotations

import pytest
import torch

from topsieve.corpus import Corpus
from topsieve.methods import build
from topsieve.reduction import BitPlan
from topsieve.subjects import open_subject
from topsieve.subjects.digits_vit.digits import TRAINING_IMAGES, load_digits
from topsieve.subjects.mosaic_llava.mosaic import (
    ASK,
    BLANK,
    GRID,
    IMAGE,
    IMAGE_TOKENS,
    NONE,
    NUMBER,
    how_many,
    make_mosaics,
    prompt_ids,
    which_digit,
)
from topsieve.subjects.subject import Inputs
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import QueryKey

BITS = BitPlan()


def test_digits_are_cut_in_two_without_overlap() -> None:
    training, test = load_digits("training"), load_digits("test")
    assert len(training.labels) == TRAINING_IMAGES
    assert len(training.labels) + len(test.labels) == 1797
    assert training.images.shape[1:] == (8, 8)
    assert float(training.images.max()) == 1.0
    assert torch.bincount(torch.cat([training.labels, test.labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    seen = {image.numpy().tobytes() for image in training.images}
    # The 1797 images hold a few exact copies of each other; no more than these may be on both sides.
    assert sum(image.numpy().tobytes() in seen for image in test.images) <= 1797 - len(
        {image.numpy().tobytes() for image in torch.cat([training.images, test.images])}
    )
    with pytest.raises(ValueError, match="training or test"):
        load_digits("validation")


def test_mosaics_show_what_their_cells_say() -> None:
    digits = load_digits("test")
    mosaics = make_mosaics(digits, 20, torch.Generator().manual_seed(3))
    for pixels, cells in zip(mosaics.pixels, mosaics.cells, strict=True):
        for row in range(GRID):
            for column in range(GRID):
                tile = pixels[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                label = int(cells[row, column])
                assert (label == BLANK) == (not tile.any())
                if label != BLANK:
                    same = (digits.images == tile).all(-1).all(-1)
                    assert label in digits.labels[same].tolist()
                question = which_digit(cells, row, column)
                assert question.answer == (NONE if label == BLANK else NUMBER + label)
        for digit in range(10):
            assert how_many(cells, digit).answer == NUMBER + min(int((cells == digit).sum()), 9)
    prompt = prompt_ids(which_digit(mosaics.cells[0], 1, 2))
    assert int((prompt == IMAGE).sum()) == IMAGE_TOKENS
    assert int(prompt[-1]) == ASK


def test_digits_vit_reads_digits_and_methods_separate_on_it() -> None:
    subject = open_subject("digits-vit", Inputs(sequences=2))
    subject.load()
    dense = subject.quality(build("dense"))
    assert dense["accuracy"] >= 0.95
    assert dense["agreement"] == 1.0
    # Half of the pixels by attention of CLS say more than half of them by chance.
    attention = subject.quality(build("evit:keep=0.5,fuse_token=false"))
    chance = subject.quality(build("random:keep=0.5"))
    assert attention["accuracy"] > chance["accuracy"]
    seen = subject.observe(build("evit:keep=0.5"), BITS)
    assert len(seen.words) == 65
    assert len(seen.survival) == 6
    assert seen.trace.model == "digits-vit"
    assert seen.trace.has_attention_operands
    assert max(op.keys for op in seen.trace.ops if isinstance(op, QueryKey)) == subject.longest
    assert subject.facts()["paragraphs"] == 360


def test_mosaic_llava_answers_and_the_question_says_what_matters() -> None:
    subject = open_subject("mosaic-llava", Inputs(paragraphs=40, sequences=2))
    subject.load()
    dense = subject.quality(build("dense"))
    assert dense["cell"] >= 0.9
    assert dense["agreement"] == 1.0
    # One cell in sixteen is asked for: the text finds it, what looks at the image alone cannot know.
    guided = subject.quality(build("fastv:keep=0.25"))
    blind = subject.quality(build("divprune:keep=0.25"))
    assert guided["cell"] > blind["cell"]
    seen = subject.observe(build("fastv:keep=0.25"), BITS)
    layers = [op.layer for op in seen.trace.ops if isinstance(op, QueryKey) and op.sequence == 0]
    assert len(seen.survival) == len(seen.tokens["attention"])
    assert layers == [0, 1, 2, 4, 5, 6, 7]
    assert all(len(letters) == len(seen.words) == subject.longest for letters in seen.survival)


@pytest.mark.parametrize("name", ["digits-vit", "mosaic-llava"])
def test_a_model_of_images_takes_no_text(name: str) -> None:
    with pytest.raises(InputError, match="takes images of its own"):
        open_subject(name, Inputs(corpus=Corpus("text", ("A paragraph.",))))
