"""`mosaic-llava`: a small LLaVA that answers questions about mosaics of digits, trained by this package."""
