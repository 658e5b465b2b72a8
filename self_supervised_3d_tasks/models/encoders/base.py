"""What encoders have in common beside their pyramid: their widths, and the check of the sizes that they are given."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from self_supervised_3d_tasks.errors import UserError


def scaled_width(width: int, multiplier: float) -> int:
    """Return the number of channels in a network of ``multiplier`` times the paper's width; at least one."""
    return max(1, round(width * multiplier))


def size_text(sizes: Iterable[int]) -> str:
    """Return sizes as in ``32x32x16``."""
    return "x".join(map(str, sizes))


def check_size(
    name: str,
    spatial: Sequence[int | None],
    divisors: Sequence[int],
    cause: str,
    *,
    decoder: bool,
    settings: Mapping[str, Sequence[int]],
) -> None:
    """Raise if an encoder reduces some axis to nothing or, under a decoder, with a rest.

    A decoder needs axes that are divided evenly, so that the way up meets the way down; alone, the encoder only has to
    keep one voxel per axis. Axes of unknown size pass.

    Args:
        name: Name of the encoder.
        spatial: ``(*spatial)`` of what the encoder sees, None where a size is not known.
        divisors: By which factor the encoder reduces each axis.
        cause: What decides about the divisors, for the message.
        decoder: Whether a decoder follows.
        settings: Other settings, the mildest first, and the divisors that each would lead to. The message offers the
            first two that would work.

    Raises:
        UserError: The sizes do not fit; the message names sizes and settings that would.
    """

    def fits(factors: Sequence[int]) -> bool:
        pairs = [(size, factor) for size, factor in zip(spatial, factors, strict=True) if size is not None]
        return all(size >= factor and not (decoder and size % factor) for size, factor in pairs)

    if fits(divisors):
        return
    pairs = [(size, divisor) for size, divisor in zip(spatial, divisors, strict=True) if size is not None]
    if decoder:
        fault = "a rest that a decoder cannot restore"
        below = [size // divisor * divisor for size, divisor in pairs]
        above = size_text(-(-size // divisor) * divisor for size, divisor in pairs)
        sizes = f"{size_text(below)} or {above}" if min(below) > 0 else above
    else:
        fault, sizes = "none", f"{size_text(map(max, pairs))} (larger data_dim or patches)"
    received, factors = (size_text(values) for values in zip(*pairs, strict=True))
    offered = islice((setting for setting, other in settings.items() if fits(other)), 2)
    raise UserError(
        f"data_dim: {name!r} receives {received} voxels and divides them by {factors} ({cause}), which leaves {fault}; "
        f"use {', or '.join([sizes, *offered])}"
    )
