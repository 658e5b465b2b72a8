"""The upward path of a U-Net, with or without its skip connections."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import ShareBelowOne
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.encoders import pyramid_outputs
from self_supervised_3d_tasks.models.encoders.unet import PRESETS, PresetName
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Model, Tensor

Size = tuple[int | None, ...]


class Level(NamedTuple):
    """A step of the way up.

    Attributes:
        name: Prefix of the names of its layers.
        factor: Enlargement of each axis from the level before.
        channels: Channels of its map; None for a step that has no weights and keeps the channels.
    """

    name: str
    factor: tuple[int, ...]
    channels: int | None


def unet(
    encoder: Model,
    *,
    num_classes: int,
    unet_preset: PresetName = "plain",
    normalization: Normalization | None = None,
    dropout: ShareBelowOne | None = None,
    skips: bool = True,
    seed: int = 0,
) -> Model:
    """Complete an encoder to a U-Net, with the predecessor's layers and parameter counts.

    Ronneberger et al. 2015, "U-Net", in any rank. A final pooling of the encoder is undone by
    nearest-neighbour up-sampling. Then, per level from coarse to fine: a transposed convolution to the
    level's size and channels, concatenation with the level's map, and a plain block. If the finest map is
    coarser than the image, one more level without a map leads back to the image's size. The enlargements
    follow from the encoder's shapes, so its strides may be any.

    Args:
        encoder: A model with `pyramid_outputs`. The result shares its layers: freezing the encoder freezes
            them here.
        num_classes: Classes, background included.
        unet_preset: Gives normalization and dropout of the decoder where the two keys do not, as in the encoder.
        normalization: Normalization of the decoder's convolutions, see `layers.normalization`.
        dropout: Dropout rate inside the decoder's blocks.
        skips: Whether the encoder's maps are concatenated; without them all that is known of the image comes through
            the encoder's output.
        seed: Seed of the initial weights and of dropout.

    Returns:
        A model image ``(batch, *spatial, channels)`` → logits ``(batch, *spatial, num_classes)``, float32.

    Raises:
        UserError: A level's size is not a multiple of the next coarser one's.
    """
    maps = {_level_name(level): map_ for level, map_ in enumerate(pyramid_outputs(encoder)[:-1])} if skips else {}
    preset = PRESETS[unet_preset]
    settings = {"normalization": normalization or preset.normalization, "momentum": preset.momentum, "seed": seed}
    settings["dropout"] = preset.dropout if dropout is None else dropout
    x = way_up(encoder.output, levels_above(encoder), maps, **settings)[-1]
    logits = layers.logits_convolution(len(x.shape) - 2, num_classes, seed=seed, name="decoder_logits")(x)
    return keras.Model(encoder.input, logits, name="segmentation")


def levels_above(encoder: Model, spatial_shape: Sequence[int] | None = None) -> list[Level]:
    """Return the steps that lead from the output of an encoder back to the size of its image, coarse to fine.

    Args:
        encoder: A model with `pyramid_outputs`.
        spatial_shape: ``(*spatial)`` of the image, for an encoder that was built for any size. An axis whose sizes are
            not known is doubled at each level.

    Raises:
        UserError: A level's size is not a multiple of the next coarser one's.
    """
    *finer, bottom = pyramid_outputs(encoder)
    steps = [] if encoder.output is bottom else [("decoder_unpool", bottom, None)]
    steps += [(_level_name(level), x, x.shape[-1]) for level, x in reversed(list(enumerate(finer)))]
    steps.append(("decoder_stem", encoder.input, max(1, (finer[0] if finer else bottom).shape[-1] // 2)))
    sizes = _sizes(encoder, [encoder.output, *(x for _, x, _ in steps)], spatial_shape)
    # A size that is not known counts as equal.
    if not any(None not in pair and pair[0] < pair[1] for pair in zip(*sizes[-2:], strict=True)):
        del steps[-1], sizes[-1]
    factors = [_factor(fine, coarse) for coarse, fine in itertools.pairwise(sizes)]
    return [Level(name, factor, channels) for (name, _, channels), factor in zip(steps, factors, strict=True)]


def way_up(
    x: Tensor,
    levels: Sequence[Level],
    maps: Mapping[str, Tensor] | None = None,
    *,
    normalization: Normalization | None,
    momentum: float = layers.MOMENTUM,
    dropout: float | None,
    seed: int,
) -> list[Tensor]:
    """Enlarge a coarse map level by level.

    Args:
        x: ``(batch, *spatial, channels)``.
        levels: Coarse to fine, see `levels_above`.
        maps: By the name of a level the map of its size that is concatenated; the other levels have none.
        normalization: Normalization of the convolutions, see `layers.normalization`.
        momentum: Momentum of a batch normalization.
        dropout: Dropout rate inside the blocks; None: 0.
        seed: Seed of the initial weights and of dropout.

    Returns:
        The maps of the levels that have weights, coarse to fine; where none has, the enlarged ``x`` alone.
    """
    rank, maps = len(x.shape) - 2, maps or {}
    settings = {"normalization": normalization, "momentum": momentum, "dropout": dropout or 0.0, "seed": seed}
    outputs = []
    for name, factor, channels in levels:
        if channels is None:
            x = layers.up_sampling(rank, factor, name=name)(x)
            continue
        x = layers.transposed_convolution(rank, channels, factor, seed=seed, name=f"{name}_up")(x)
        if name in maps:
            x = keras.layers.Concatenate(name=f"{name}_concat")([x, maps[name]])
        x = blocks.plain_block(x, channels, **settings, name=name)
        outputs.append(x)
    return outputs or [x]


def _level_name(level: int) -> str:
    return f"decoder_level_{level}"


def _sizes(encoder: Model, maps: Sequence[Tensor], spatial_shape: Sequence[int] | None) -> list[Size]:
    """Return ``(*spatial)`` of some of an encoder's maps, for an image of ``spatial_shape``."""
    if spatial_shape is not None:
        image = keras.KerasTensor((None, *spatial_shape, encoder.input.shape[-1]))
        maps = keras.Model(encoder.input, list(maps)).compute_output_spec(image)
    return [tuple(x.shape[1:-1]) for x in maps]


def _factor(fine: Size, coarse: Size) -> tuple[int, ...]:
    """Return the enlargement of each axis from ``coarse`` to ``fine``; 2 where a size is not known."""
    sizes = list(zip(fine, coarse, strict=True))
    if any(None not in pair and pair[0] % pair[1] for pair in sizes):
        raise UserError(
            f"data_dim: a decoder cannot enlarge a map of size {coarse} to {fine}; "
            "use sizes that every pooling divides, such as multiples of 32"
        )
    return tuple(2 if None in pair else pair[0] // pair[1] for pair in sizes)
