"""Gather and compact move bits: every dtype, layout and length, equal to the definition."""

import pytest
import torch

from topsieve_kernels.gather import gather_rows, gather_rows_reference


def row_lists(batch, heads, count, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, heads, count, generator=generator).argsort(-1)[..., :rows].sort(-1).values


@pytest.mark.parametrize(
    ("dtype", "channels"),
    [
        (torch.float16, 64),
        (torch.bfloat16, 3),
        (torch.uint8, 5),
        (torch.float32, 300),
        (torch.int8, 16),
        (torch.float64, 1),
    ],
)
def test_kernel_equals_reference_bit_for_bit(interpreter, dtype, channels):
    source = torch.randint(-100, 100, (2, 3, 20, channels)).to(dtype)
    if dtype.is_floating_point:
        source[0, 0, 3] = float("nan")
    index, length = row_lists(2, 3, 20, 9), torch.tensor([[9, 0, 4], [1, 2, 9]])
    for layout in (source, source.transpose(1, 2).contiguous().transpose(1, 2), source.transpose(2, 3).contiguous().mT):
        found = gather_rows(layout, index, length, backend="triton")
        wanted = gather_rows_reference(source, index, length)
        assert found.dtype == dtype
        assert torch.equal(found.contiguous().view(torch.uint8), wanted.contiguous().view(torch.uint8))


def test_rows_shared_by_every_head(interpreter):
    source = torch.randn(2, 3, 10, 4)
    index = torch.tensor([[[1, 4, 9]]])
    assert torch.equal(gather_rows(source, index, backend="triton"), source[:, :, [1, 4, 9]])
    assert torch.equal(gather_rows(source, index), source[:, :, [1, 4, 9]])


def test_entries_beyond_the_length_are_never_read():
    source = torch.randn(1, 1, 4, 2)
    found = gather_rows(source, torch.tensor([[[2, 99]]]), torch.tensor([[1]]))
    assert torch.equal(found[0, 0, 0], source[0, 0, 2])
    assert not found[0, 0, 1].any()


def test_empty_lists():
    assert gather_rows(torch.randn(1, 2, 4, 2), torch.zeros(1, 2, 0, dtype=torch.int64)).shape == (1, 2, 0, 2)


@pytest.mark.parametrize(
    ("index", "length", "field"),
    [
        (torch.tensor([[[4]]]), None, "index"),
        (torch.tensor([[[-1]]]), None, "index"),
        (torch.tensor([[[0.0]]]), None, "index"),
        (torch.tensor([[[0]]]), torch.tensor([[2]]), "length"),
        (torch.tensor([[[0]]]), torch.tensor([1]), "length"),
    ],
)
def test_bad_lists_are_refused(index, length, field):
    with pytest.raises(ValueError, match=f"^{field}: got"):
        gather_rows(torch.zeros(1, 1, 4, 2), index, length)
