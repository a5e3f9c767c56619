"""The GPU benchmark: every kernel checked against float64, then timed beside the strongest public ways to the same result."""

# Of the JSON that `report` writes; a reader refuses any other.
SCHEMA_VERSION = 2
