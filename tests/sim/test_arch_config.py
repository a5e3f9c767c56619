"""The configuration: round trips, overrides, and one line for every wrong value."""

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from topsieve_sim.arch import AcceleratorConfig, dump_config, json_schema, load_config, preset_names
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.errors import InputError

PRESETS = ("ecp5", "spatten", "spatten-eighth", "tiny", "topsieve")


def test_the_promised_presets_ship():
    assert preset_names() == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_round_trip_is_exact(name, tmp_path):
    config = load_config(name)
    dump_config(config, tmp_path / "resolved.yaml")
    again = load_config(tmp_path / "resolved.yaml")
    assert again == config
    assert again.digest == config.digest


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_under_the_exported_schema(name):
    jsonschema.validate(load_config(name).model_dump(mode="json"), json_schema())


def test_the_published_machine_has_the_published_numbers():
    """SpAtten, Table I: 512 + 512 multipliers, 512 GB/s, 1 GHz, 1024 tokens, top-k parallelism 16."""
    config = load_config("spatten")
    assert (config.dot_product.multipliers, config.weighted_sum.multipliers) == (512, 512)
    assert config.memory.bytes_per_cycle * config.clock_mhz / 1000 == 512
    assert (config.capacity, config.max_head_dim, config.softmax.lanes, config.topk.parallelism) == (1024, 64, 8, 16)
    assert config.formats.key_bits == 12


@given(name=st.sampled_from(PRESETS), capacity=st.integers(2, 65_536), seed=st.integers(1, 0xFFFF))
def test_overrides_change_that_field_and_nothing_else(name, capacity, seed):
    changed = load_config(name, [f"capacity={capacity}", f"topk.seed={seed}"])
    expected = load_config(name).model_dump()
    expected["capacity"] = capacity
    expected["topk"]["seed"] = seed
    assert changed.model_dump() == expected


def test_digest_tells_configurations_apart():
    digests = {load_config(name).digest for name in PRESETS}
    digests.add(load_config("tiny", ["clock_mhz=101"]).digest)
    assert len(digests) == len(PRESETS) + 1


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        load_config("tiny").capacity = 3


BAD_OVERRIDES = [
    ("capacity=1", "capacity", "1"),
    ("capacity=abc", "capacity", "abc"),
    ("capacity=65537", "capacity", "65537"),
    ("clock_mhz=0", "clock_mhz", "0"),
    ("clock_mhz=-5", "clock_mhz", "-5"),
    ("name=a b", "name", "a b"),
    ("name=", "name", None),
    ("max_head_dim=0", "max_head_dim", "0"),
    ("double_buffer=7", "double_buffer", "7"),
    ("softmax.lanes=0", "softmax.lanes", "0"),
    ("softmax.lanes=129", "softmax.lanes", "129"),
    ("softmax=3", "softmax", "3"),
    ("softmax.width=3", "softmax.width", None),
    ("topk.selector=bubble", "topk.selector", "bubble"),
    ("topk.parallelism=0", "topk.parallelism", "0"),
    ("topk.parallelism=12", "topk.parallelism", "12"),
    ("topk.seed=0", "topk.seed", "0"),
    ("topk.seed=65536", "topk.seed", "65536"),
    ("topk.radix_bits=0", "topk.radix_bits", "0"),
    ("dot_product.multipliers=0", "dot_product.multipliers", "0"),
    ("dot_product.multipliers=9", "dot_product.multipliers", "9"),
    ("weighted_sum.multipliers=9", "weighted_sum.multipliers", "9"),
    ("weighted_sum.lane_split=0", "weighted_sum.lane_split", "0"),
    ("progressive.threshold=1.5", "progressive.threshold", "1.5"),
    ("progressive.threshold=-0.1", "progressive.threshold", "-0.1"),
    ("importance.heads=0", "importance.heads", "0"),
    ("memory.model=magic", "memory.model", "magic"),
    ("memory.channels=0", "memory.channels", "0"),
    ("memory.channels=65", "memory.channels", "65"),
    ("memory.beat_bytes=0", "memory.beat_bytes", "0"),
    ("memory.latency_cycles=0", "memory.latency_cycles", "0"),
    ("memory.latency=3", "memory.latency", None),
    ("memory.beat_bytes=3", "memory", "power of two"),
    ("memory.channels=64", "memory", "power of two up to 128"),
    ("memory.axi.burst_words=0", "memory.axi.burst_words", "0"),
    ("memory.axi.burst_words=257", "memory.axi.burst_words", "257"),
    ("memory.axi.outstanding=0", "memory.axi.outstanding", "0"),
    ("memory.axi.buffer_words=3", "memory.axi", "buffer_words must be at least burst_words = 4, got 3"),
    ("memory.axi.merge_bytes=-1", "memory.axi.merge_bytes", "-1"),
    ("memory.axi.address_bits=11", "memory.axi.address_bits", "11"),
    ("memory.axi.bursts=1", "memory.axi.bursts", None),
    ("weighted_sum.lane_split=8", "lane_split", "must be equal with memory.model = axi, got 4 and 8"),
    ("technology=40 nm", "technology", "40 nm"),
    ("formats.query_bits=1", "formats.query_bits", "1"),
    ("formats.query_bits=17", "formats.query_bits", "17"),
    ("formats.key_msb_bits=1", "formats.key_msb_bits", "1"),
    ("formats.key_lsb_bits=9", "formats.key_lsb_bits", "9"),
    ("formats.score_bits=7", "formats", "score_fraction_bits"),
    ("formats.score_fraction_bits=0", "formats.score_fraction_bits", "0"),
    ("formats.exponential_table_bits=7", "formats", "exponential_table_bits"),
    ("formats.reciprocal_table_bits=0", "formats.reciprocal_table_bits", "0"),
    ("formats.probability_bits=3", "formats.probability_bits", "3"),
    ("formats.token_importance_bits=4", "formats.token_importance_bits", "4"),
    ("unknown=1", "unknown", None),
    ("capacity", "--set", "capacity"),
    ("=4", "--set", "=4"),
    ("a..b=4", "--set", "a..b=4"),
    ("capacity=[1", "capacity", "[1"),
    ("capacity.x=1", "capacity.x", None),
]


def test_a_scaled_dot_product_must_fit_the_integers_of_the_models():
    wide = ["formats.query_bits=16", "formats.key_msb_bits=16", "formats.key_lsb_bits=8", "max_head_dim=512"]
    with pytest.raises(InputError, match="must fit 63 bits, got 65"):
        load_config("spatten", wide)
    assert load_config("spatten", [*wide[:2], "formats.key_lsb_bits=6", "max_head_dim=512"]).formats.key_bits == 22


@pytest.mark.parametrize(("override", "field", "value"), BAD_OVERRIDES)
def test_a_wrong_value_is_one_line_that_names_field_and_value(override, field, value):
    with pytest.raises(InputError) as caught:
        load_config("tiny", [override])
    line = str(caught.value)
    assert "\n" not in line
    assert field in line
    assert value is None or value in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must hold a mapping"),
        ("- 1\n- 2\n", "must hold a mapping"),
        ("name: tiny\n", "required field is missing"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: b: c\n", "line 1"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_file(text, expected, tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(InputError, match="ecp5, spatten, spatten-eighth, tiny, topsieve"):
        load_config("spaten")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_unreadable_file(content, tmp_path):
    path = tmp_path / "machine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"machine\.yaml"):
        load_config(path)


@given(query=st.integers(2, 16), msb=st.integers(2, 16), lsb=st.integers(0, 8), head_dim=st.integers(1, 512))
def test_dot_product_width_holds_the_extreme_sum_and_one_bit_less_does_not(query, msb, lsb, head_dim):
    formats = NumberFormats(query_bits=query, key_msb_bits=msb, key_lsb_bits=lsb)
    largest = head_dim * (1 << (query - 1)) * (1 << (msb + lsb - 1))
    bits = formats.dot_product_bits(head_dim)
    assert largest <= 1 << (bits - 1)
    assert head_dim == 1 or largest > 1 << (bits - 3)


@given(rows=st.integers(1, 64), head_dim=st.integers(1, 512))
def test_array_interval_covers_the_work_without_a_spare_cycle(rows, head_dim):
    array = AcceleratorConfig.model_validate(
        yaml.safe_load(yaml.safe_dump(load_config("spatten").model_dump(mode="json")))
    ).dot_product
    interval = array.interval_cycles(rows, head_dim)
    padded = -(-head_dim // array.lane_split) * array.lane_split
    assert interval * array.multipliers >= rows * padded
    assert interval == 1 or (interval - 1) * array.multipliers < rows * padded
