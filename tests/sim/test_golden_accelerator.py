"""The golden accelerator: memory images in and out, live lists, importance, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.accelerator_jobs import START, draw_job, draw_layers, expected_layers, run_job
from sim.attention_strategies import TINY, fetched_machines
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine.job import Job, TensorOrder, build_job
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator import MachineState, RunError, run
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES
from topsieve_sim.golden.byte_memory import ByteMemory, packed, unpacked
from topsieve_sim.golden.descriptor import Flag, encode_descriptor


@given(st.integers(1, 24), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_packed_rows_are_the_bits_of_their_elements_in_order(bits: int, width: int, rows: int, seed: int) -> None:
    elements = np.random.default_rng(seed).integers(-(1 << (bits - 1)), 1 << (bits - 1), (rows, width))
    images = list(packed(elements, bits))
    for image, row in zip(images, elements.tolist(), strict=True):
        whole = sum((value & ((1 << bits) - 1)) << place * bits for place, value in enumerate(row))
        assert int.from_bytes(image, "little") == whole
        assert len(image) == -(-width * bits // 8)
    image = np.array([list(image) for image in images], np.uint8)
    assert (unpacked(image, width, bits, signed=True) == elements).all()
    assert (unpacked(image, width, bits, signed=False) == elements % (1 << bits)).all()


@settings(max_examples=60, deadline=None)
@given(config=fetched_machines(), seed=st.integers(0, 2**32 - 1))
def test_a_job_does_what_its_operands_say(config: AcceleratorConfig, seed: int) -> None:
    config = config.model_copy(update={"memory": config.memory.model_copy(update={"axi": TINY.memory.axi})})
    job, layers = draw_job(config, seed)
    done = run_job(job)
    assert done.error is RunError.NONE
    for number, (expected, layer) in enumerate(zip(expected_layers(job, layers), done.layers, strict=True)):
        assert (job.outputs(done.memory, number) == expected.outputs).all()
        state = layer.state
        assert state is not None
        assert state.tokens.tolist() == expected.tokens
        assert np.flatnonzero(state.alive).tolist() == expected.heads
        if Flag.REPORT in layer.descriptor.flags:
            tokens, heads, repeated = job.report(done.memory, number)
            assert tokens == list(zip(expected.tokens, expected.token_importance, strict=True))
            assert heads == [(head, expected.head_importance[head]) for head in expected.heads]
            assert layer.result is not None
            assert repeated == layer.result.lsb_rows.sum()


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_tensors_changes_no_output(seed: int) -> None:
    layers = draw_layers(TINY, seed)
    runs = [(job, run_job(job)) for job in (build_job(TINY, layers, order=order) for order in TensorOrder)]
    for number in range(len(layers)):
        first, second = (job.outputs(done.memory, number) for job, done in runs)
        assert (first == second).all()


def test_importance_saturates() -> None:
    config = load_config("tiny", ["formats.token_importance_bits=8", "formats.head_importance_bits=8"])
    added = dataclasses.replace(draw_layers(config, 1)[0], flags=Flag.ACCUMULATE_TOKENS | Flag.ACCUMULATE_HEADS)
    first = dataclasses.replace(added, flags=START | added.flags)
    state = run_job(build_job(config, [first] + [added] * 5)).state
    assert state.token_importance.max() == 255
    assert state.head_importance.max() == 255


def patched(job: Job, number: int, **changes: object) -> bytes:
    """The image with fields of a descriptor changed."""
    begin = job.descriptor_address + DESCRIPTOR_BYTES * number
    changed = encode_descriptor(dataclasses.replace(job.descriptors[number], **changes))
    return job.image[:begin] + changed + job.image[begin + DESCRIPTOR_BYTES :]


def two_layers() -> Job:
    layer = dataclasses.replace(draw_layers(TINY, 3)[0], flags=START)
    return build_job(TINY, [layer, layer])


def test_a_bad_descriptor_stops_the_job_before_it_does_anything() -> None:
    job = two_layers()
    image = patched(job, 1, head_dim=0)
    done = run(image, job.descriptor_address, TINY, job.threshold)
    assert done.error is RunError.BAD_DESCRIPTOR
    assert len(done.layers) == 2
    assert "head_dim" in (done.layers[1].problem or "")
    assert (job.outputs(done.memory, 0) == run_job(job).layers[0].result.output).all()  # type: ignore[union-attr]
    assert not job.outputs(done.memory, 1).any()
    again = run(job.image, job.descriptor_address, TINY, job.threshold, done.state)
    assert again.error is RunError.NONE


@pytest.mark.parametrize(
    ("change", "error"), [({"value": 1 << 30}, RunError.READ), ({"output": 1 << 30}, RunError.WRITE)]
)
def test_accesses_beyond_the_memory_end_the_job_after_their_descriptor(change: dict[str, int], error: RunError) -> None:
    job = two_layers()
    done = run(patched(job, 0, **change), job.descriptor_address, TINY, job.threshold)
    assert done.error is error
    assert len(done.layers) == 1
    assert done.state.tokens.size == job.descriptors[0].keys


def test_a_descriptor_that_cannot_be_read_is_a_read_error() -> None:
    done = run(b"", 0, TINY, 0)
    assert done.error is RunError.READ
    assert done.layers[0].result is None


def test_planes_that_nobody_fetches_may_lie_anywhere() -> None:
    layer = dataclasses.replace(draw_layers(TINY, 3)[0], flags=START | Flag.PROGRESSIVE)
    job = build_job(TINY, [layer], threshold=0.0)
    assert run(patched(job, 0, key_lsb=1 << 30), job.descriptor_address, TINY, 0).error is RunError.NONE
    assert run(patched(job, 0, key_lsb=1 << 30), job.descriptor_address, TINY, 1 << 8).error is RunError.READ


def test_addresses_wrap_around_at_their_width() -> None:
    memory = ByteMemory.of(bytes(range(200)) * 21, 4, 12)
    assert memory.read(np.array([4095]), 2).tolist() == [[4095 % 200, 0]]
    assert not memory.read_failed


def test_a_machine_without_ports_is_refused() -> None:
    with pytest.raises(InputError, match=r"memory\.model"):
        run(b"", 0, load_config("spatten"), 0)
    assert MachineState.after_reset(TINY).counts() == (0, 0, 0)
