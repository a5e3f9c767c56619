"""The token pruning and merging methods, one a file, and their registry."""
