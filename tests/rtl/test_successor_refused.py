# amaranth: UnusedElaboratable=no
"""Hardware of the successor does not exist: its units refuse, and the one unit that is the same is built."""

from __future__ import annotations

import pytest

from topsieve_rtl.units import find_unit, unit_names
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError

SUCCESSOR = load_config("tiny", ["memory.model=ideal", "successor.buffered_heads=4"])


@pytest.mark.parametrize("name", unit_names())
def test_only_units_that_are_the_same_are_built(name: str) -> None:
    unit = find_unit(name)
    if unit.serves_successor:
        assert unit.design(SUCCESSOR) is not None
        return
    with pytest.raises(InputError, match=r"successor\.buffered_heads: the hardware cannot do"):
        unit.design(SUCCESSOR)


def test_the_top_k_engine_is_the_same() -> None:
    assert [name for name in unit_names() if find_unit(name).serves_successor] == ["topk"]
