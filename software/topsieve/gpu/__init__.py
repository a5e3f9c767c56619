"""What the work of a trace costs on a GPU: measured times where the benchmark has the shape, else a roofline, and which.

`gpu_cost(gpu_work(trace), load_gpu())`. Torch is not needed.
"""

from topsieve.gpu.cost import COLUMNS, GPU_KEY, GpuCost, OpCost, gpu_columns, gpu_cost
from topsieve.gpu.machine import Gpu, gpu_names, load_gpu
from topsieve.gpu.work import Counted, from_plain, gpu_work, shapes_to_measure, to_plain

__all__ = [
    "COLUMNS",
    "GPU_KEY",
    "Counted",
    "Gpu",
    "GpuCost",
    "OpCost",
    "from_plain",
    "gpu_columns",
    "gpu_cost",
    "gpu_names",
    "gpu_work",
    "load_gpu",
    "shapes_to_measure",
    "to_plain",
]
