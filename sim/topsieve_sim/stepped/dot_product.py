"""The dot-product array clock by clock: a credit pipeline whose function is the golden model of a beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.numbers import ScoreFactor
from topsieve_sim.stepped.pipeline import CreditPipeline


class DotProductArray(CreditPipeline):
    """Beats in: `(query [head_dim], keys [1..lanes][head_dim], last)`; beats out: `(scores, last)`."""

    def __init__(self, config: AcceleratorConfig, head_dim: int, factor: ScoreFactor) -> None:
        cycles = attention_latencies(config)
        interval = config.dot_product.interval_cycles(config.softmax.lanes, head_dim)

        def beat(payload: Any) -> Any:
            query, keys, last = payload
            sums = dot_products(np.array([query], np.int64), np.array(keys, np.int64), config.formats)
            return tuple(int(s) for s in scores(sums, factor, config.formats)[0]), last

        super().__init__(beat, cycles.dot_product + interval - 1, cycles.dot_product_depth, interval)
