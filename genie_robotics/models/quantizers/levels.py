"""Levels of finite scalar quantization for a given number of codes."""

import math

PAPER = {
    240: (8, 6, 5),
    1000: (8, 5, 5, 5),
    4375: (7, 5, 5, 5, 5),
    15360: (8, 8, 8, 6, 5),
    64000: (8, 8, 8, 5, 5, 5),
}
"""Mentzer et al. 2023, table 1, under the product of the levels; the paper calls them 2^8 .. 2^16."""


def levels_of(num_codes: int) -> tuple[int, ...]:
    """Levels whose product is exactly `num_codes`; empty if there are none.

    Sizes of the paper's table get its levels. Others get their prime factors, where pairs of twos become fours above 8
    codes: 8 is 2,2,2 and 1024 is 4,4,4,4,4. A prime above 7 would need too many levels, a single factor above 3 is a
    line and no grid.
    """
    if num_codes in PAPER:
        return PAPER[num_codes]
    left, factors = num_codes, []
    for prime in (7, 5, 3, 2):
        while left > 1 and left % prime == 0:
            factors.append(prime)
            left //= prime
    if left != 1 or (len(factors) < 2 and num_codes > 3):
        return ()
    if num_codes > 8:
        fours, twos = divmod(factors.count(2), 2)
        factors = [f for f in factors if f != 2] + [4] * fours + [2] * twos
    return tuple(sorted(factors, reverse=True))


def chosen_levels(num_codes: int, levels: tuple[int, ...] = ()) -> tuple[int, ...]:
    """`levels`, or those of `levels_of` if there are none.

    Raises:
        ValueError: their product is not `num_codes`, or no levels have that product.
    """
    if num_codes < 2:
        raise ValueError(f"num_codes must be at least 2, got {num_codes}")
    if levels:
        product = math.prod(levels)
        if min(levels) < 2 or product != num_codes:
            given = ",".join(map(str, levels))
            raise ValueError(
                f"levels must be at least 2 each and multiply to num_codes {num_codes}, got {given} (product {product})"
            )
        return tuple(levels)
    found = levels_of(num_codes)
    if not found:
        fewer = next((n for n in range(num_codes, 1, -1) if levels_of(n)), None)
        more = next(n for n in range(num_codes, 2 * num_codes + 3) if levels_of(n))
        nearest = f"{fewer} or {more}" if fewer else f"{more}"
        raise ValueError(f"num_codes {num_codes} is not a product of FSQ levels; nearest that are: {nearest}")
    return found
