"""What every selection kernel shares: keys that order as the scores do, the k-th of them, and the way out.

A float32 becomes an unsigned key: larger value, larger key; -0 equals +0; NaN is 0, below minus infinity. The k-th largest
key is found by narrowing the interval between the smallest and the largest to a third and counting, until the count is good
enough: mostly 5 to 12 steps. A step is some eight instructions for every 32 elements; a histogram of one of four 8-bit digits
was some 60. Where a step leaves as many keys inside as before, the interval shrinks to them: many equal keys end the search.

Blocks are handed out four neighbours at a time, so that a thread's elements are scanned as one: a prefix sum over every
element would shuffle four times as much, and reach memory through two changes of layout.
"""

from topsieve_kernels.backend import jit, tl


@jit
def order_key(value):
    """Unsigned 32-bit integers that order as the floats do; 0 for NaN, both zeros alike."""
    bits = tl.where(value == 0.0, 0.0, value).to(tl.uint32, bitcast=True)
    flipped = tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(value == value, flipped, 0)


@jit
def key_value(key):
    """The float32 of an order key; NaN for 0 and above the key of infinity."""
    bits = tl.where(key >= 0x80000000, key & 0x7FFFFFFF, key ^ 0xFFFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@jit
def narrow_to_rank(key, low, reached, rank, limit):
    """The largest bound found that at least `rank` keys reach: at most `limit` reach it, or it is the rank-th key.

    `low` is a bound that `reached` keys reach, at least `rank` of them. Elements that do not take part hold key 0. At most
    32767 keys: two counts share an integer.
    """
    high = tl.max(key, axis=0) + 1
    beyond = tl.full([], 0, tl.int32)
    while (reached > limit) & (high > low + 1):
        # Thirds: the steps of a reduction take longer than the second comparison.
        third = tl.maximum((high - low) // 3, 1)
        lower = low + third
        upper = high - third
        found = tl.sum((key >= lower).to(tl.int32) + ((key >= upper).to(tl.int32) << 16), axis=0)
        found_lower = found & 0xFFFF
        found_upper = found >> 16
        inside = reached - beyond
        beyond = tl.where(found_upper >= rank, beyond, tl.where(found_lower >= rank, found_upper, found_lower))
        reached = tl.where(found_upper >= rank, found_upper, tl.where(found_lower >= rank, found_lower, reached))
        low = tl.where(found_upper >= rank, upper, tl.where(found_lower >= rank, lower, low))
        high = tl.where(found_upper >= rank, high, tl.where(found_lower >= rank, upper, lower))
        if reached - beyond == inside:
            # None fell out: mostly the keys inside are all equal, and this ends the search.
            high = tl.max(tl.where(key < high, key, 0), axis=0) + 1
            low = tl.min(tl.where(key >= low, key, 0xFFFFFFFF), axis=0)
    return low


@jit
def quarters(block, BLOCK: tl.constexpr):
    """Four [BLOCK / 4]: every fourth element of a [BLOCK], from the first, second, third and fourth on."""
    even, odd = tl.split(tl.reshape(block, [BLOCK // 4, 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@jit
def above_and_tied(key, here, low):
    """1 in the low half of an integer where a key lies above `low`, 1 in the high half where it equals `low`."""
    return (key > low).to(tl.int32) + (((key == low) & here).to(tl.int32) << 16)


@jit
def place_of(before, quota):
    """The place of an element among the kept, from the number above (low half) and tied (high half) before it."""
    return (before & 0xFFFF) + tl.minimum(before >> 16, quota)


@jit
def is_kept(own, before, quota):
    """Whether an element lies above the bound, or is among the first `quota` that equal it."""
    return ((own & 0xFFFF) > 0) | ((own > 0) & ((before >> 16) < quota))
