"""The GPU benchmark: every kernel checked against float64, then timed beside the strongest public ways to the same result."""
