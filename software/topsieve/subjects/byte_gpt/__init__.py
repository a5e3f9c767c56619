"""`byte-gpt`: a GPT-2 of bytes with a million parameters, trained by this package on the Python reference."""
