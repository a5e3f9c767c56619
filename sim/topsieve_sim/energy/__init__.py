"""Energy and area tables with their sources."""
