"""What synthesis may know of a memory."""

# No word is read in the cycle in which it is written, or what is read is not used. Without it synthesis surrounds a block RAM
# with comparators and a way round it, to give what the word was. Each memory that says so has its collisions among its
# `overflow`, which tests and proofs hold at 0.
NEVER_READ_WHILE_WRITTEN = {"no_rw_check": 1}
