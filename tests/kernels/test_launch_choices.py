"""How many programs a launch gets: the chip is filled, no part is empty, and what is split too finely is not."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from topsieve_kernels.ahead_of_time import Resources, innermost_loops
from topsieve_kernels.attention_one_pass import LONG_WALK_TILES, fits_one_pass, one_pass_shares
from topsieve_kernels.backend import SPLIT_TARGET_MULTIPROCESSORS, ceil_div
from topsieve_kernels.split_combine import MAXIMUM_PARTS, SHORTEST_PART, split_count

CHIP = SPLIT_TARGET_MULTIPROCESSORS


@given(st.integers(1, 5000), st.integers(0, 10**6), st.sampled_from([16, 32, 64, 128]))
def test_split_rows_fill_the_chip_and_no_part_is_empty(groups, columns, block):
    parts = split_count(groups, columns, block, torch.zeros(1))
    blocks = ceil_div(columns, block)
    assert 1 <= parts <= min(max(blocks, 1), MAXIMUM_PARTS)
    assert groups * parts >= 2 * CHIP or parts in (max(blocks, 1), MAXIMUM_PARTS)
    # Shorter parts than that only where the chip would stand idle otherwise.
    assert columns >= parts * SHORTEST_PART or groups * (parts - 1) < 2 * CHIP


def test_long_rows_of_a_large_batch_are_split_far_beyond_one_turn_of_the_chip():
    for columns in (16384, 32768):
        assert 128 * split_count(128, columns, 64, torch.zeros(1)) >= 20 * CHIP


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 300))
def test_a_walk_is_shared_only_where_programs_are_few_and_it_is_long(programs, heads, tiles):
    shares = one_pass_shares(programs, heads, tiles, CHIP)
    assert 1 <= shares <= tiles
    if shares > 1:
        assert heads * tiles >= LONG_WALK_TILES
        assert programs * shares <= CHIP
    assert one_pass_shares(1, 1, 5, CHIP) == 1
    assert one_pass_shares(1, 2, 5, CHIP) == 5


def test_one_pass_takes_what_fits_on_chip():
    fits = [(256, 64, torch.float16), (256, 128, torch.bfloat16), (128, 256, torch.float16), (128, 64, torch.float32)]
    too_much = [
        (257, 64, torch.float16),
        (129, 256, torch.float16),
        (256, 129, torch.float16),
        (129, 64, torch.float32),
    ]
    assert all(fits_one_pass(*case) for case in fits)
    assert not any(fits_one_pass(*case) for case in too_much)


def test_resident_programs_are_those_of_the_scarcest_resource():
    def resident(warps, registers, shared_bytes, capability=90):
        return Resources("", capability, warps, registers, 0, shared_bytes, 0).resident_programs

    # 255 registers are handed out as 256: 65536 / (256 * 32 * 4).
    assert resident(4, 255, 0) == 2
    assert resident(8, 255, 0) == 1
    assert resident(4, 32, 100 * 1024) == 2
    assert resident(4, 32, 100 * 1024, 80) == 1
    assert resident(4, 32, 0) == 16
    assert resident(1, 16, 0) == 32
    assert resident(4, 32, 300 * 1024) == 0


LISTING = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_3:
        /*0010*/                   LDG.E R2, [R4] ;
.L_x_1:
        /*0020*/                   FADD R2, R2, R3 ;
        /*0030*/                   FADD R2, R2, R3 ;
        /*0040*/              @P0  BRA `(.L_x_1) ;
        /*0050*/                   BRA `(.L_x_2) ;
.L_x_2:
        /*0060*/              @!P0 BRA `(.L_x_3) ;
        /*0070*/                   EXIT ;
.L_x_4:
        /*0080*/                   BRA `(.L_x_4);
"""


def test_innermost_loops_are_counted():
    assert innermost_loops(LISTING) == [3]
    assert innermost_loops(LISTING.replace(".L_x_1)", ".L_x_2)")) == [6]


def test_a_loop_that_issues_twice_as_long_takes_half_the_bytes():
    loops = (Resources("", 90, 4, 64, 0, 0, instructions, 8192).loop_bytes_per_cycle for instructions in (256, 512))
    assert list(loops) == [32.0, 16.0]
