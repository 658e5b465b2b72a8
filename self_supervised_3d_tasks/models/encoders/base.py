"""What encoders have in common beside their pyramid: their widths, and the sizes that they suggest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def scaled_width(width: int, multiplier: float) -> int:
    """Return the number of channels in a network of ``multiplier`` times the paper's width; at least one."""
    return max(1, round(width * multiplier))


def size_text(sizes: Iterable[int]) -> str:
    """Return sizes as in ``32x32x16``."""
    return "x".join(map(str, sizes))


def neighbouring_multiples(sizes: Sequence[int], divisors: Sequence[int]) -> str:
    """Return the nearest sizes that the divisors divide, ``32x32 or 64x64``; without the smaller ones if empty.

    Args:
        sizes: One per axis.
        divisors: One per axis.
    """
    pairs = list(zip(sizes, divisors, strict=True))
    below = [size // divisor * divisor for size, divisor in pairs]
    above = [-(-size // divisor) * divisor for size, divisor in pairs]
    return f"{size_text(below)} or {size_text(above)}" if min(below) > 0 else size_text(above)
