"""Where the factors of the table `40nm` come from: published numbers of SpAtten over cells at published rates.

Only numbers of the paper enter, no simulation of ours: a power is divided by what the cells of `40nm_cells` would take
at the rates that the paper implies, an area by what the cells of the configuration `spatten` occupy.

Rates (SpAtten, section V-B and Table II): the machine executes 1.61 TFLOPS on 22 BERT benchmarks and 0.43 on 8 of GPT-2;
both products are taken to have half of the operations. 5.71 W of DRAM at 3.92 pJ a bit are its traffic.
"""

from __future__ import annotations

from topsieve_sim.arch import load_config
from topsieve_sim.energy.actions import action_energies_pj
from topsieve_sim.energy.area import area_um2
from topsieve_sim.energy.components import Action, Component

CELLS = "40nm_cells"
MACHINE = "spatten"

# Published: Table II and Figure 13.
QK_POWER_W, SRAM_POWER_W, FETCHER_POWER_W, DRAM_POWER_W = 1.13, 1.24, 0.24, 5.71
QK_AREA_MM2, FETCHER_AREA_MM2 = 7.12, 2.65
# Published: section V-B.
BERT_TFLOPS, BERT_BENCHMARKS, GPT2_TFLOPS, GPT2_BENCHMARKS = 1.61, 22, 0.43, 8

ARRAY_ACTIONS = (Action.MULTIPLY, Action.ADD, Action.SCALE)


def products_per_second() -> float:
    """Multiply-accumulates a second of each of the two arrays, mean over the 30 benchmarks."""
    total = BERT_BENCHMARKS * BERT_TFLOPS + GPT2_BENCHMARKS * GPT2_TFLOPS
    return total / (BERT_BENCHMARKS + GPT2_BENCHMARKS) * 1e12 / 2 / 2


def fitted_factors() -> dict[str, float]:
    """The factor of each calibration of `40nm` by its `fitted_to`.

    The three energies follow one after the other. Fetcher: all its power is taken for the bits that pass it. Buffers:
    what the fetcher's FIFOs leave of the SRAM power is taken for the key and value buffers, which read 12 bits a product
    and are written once with every bit fetched. Arrays: what the key buffer leaves of the power of QxK.
    """
    config = load_config(MACHINE, [f"technology={CELLS}"])
    energy, area = action_energies_pj(config), area_um2(config)
    products = products_per_second()
    bits = DRAM_POWER_W / (energy[Component.DRAM, Action.READ_BIT] * 1e-12)
    clock = config.clock_mhz * 1e6

    def leak_w(component: Component) -> float:
        return energy[component, Action.LEAK_CYCLE] * clock * 1e-12

    def buffer_w(component: Component, written: float, width: int) -> float:
        read = products * width * energy[component, Action.READ_BIT]
        return (read + written * energy[component, Action.WRITE_BIT]) * 1e-12

    fetcher = (FETCHER_POWER_W - leak_w(Component.FETCHER)) / (
        bits * energy[Component.FETCHER, Action.TRANSFER_BIT] * 1e-12
    )
    # Keys and values are fetched in equal parts.
    key = buffer_w(Component.KEY_BUFFER, bits / 2, config.formats.key_bits)
    value = buffer_w(Component.VALUE_BUFFER, bits / 2, config.formats.value_bits)
    leaks = leak_w(Component.KEY_BUFFER) + leak_w(Component.VALUE_BUFFER)
    buffers = (SRAM_POWER_W - FETCHER_POWER_W - leaks) / (key + value)
    cells = products * (
        energy[Component.DOT_PRODUCT, Action.MULTIPLY]
        + energy[Component.DOT_PRODUCT, Action.ADD]
        + energy[Component.DOT_PRODUCT, Action.SCALE] / config.max_head_dim
    )
    arrays = (QK_POWER_W - leak_w(Component.KEY_BUFFER) - buffers * key) / (cells * 1e-12)
    return {
        "power of fetcher": fetcher,
        "SRAM": buffers,
        "power of QxK and key buffer": arrays,
        "area of QxK and key buffer": QK_AREA_MM2 * 1e6 / (area[Component.DOT_PRODUCT] + area[Component.KEY_BUFFER]),
        "area of fetcher": FETCHER_AREA_MM2 * 1e6 / area[Component.FETCHER],
    }
