"""The upward path of a U-Net."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.encoders import pyramid_outputs
from self_supervised_3d_tasks.models.layers import Model, Normalization, Tensor

keras = lazy.load("keras")


def unet(
    encoder: Model,
    *,
    num_classes: int,
    normalization: Normalization = "batch",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
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
        normalization: Normalization of the decoder's convolutions.
        dropout: Dropout rate inside the decoder's blocks.
        seed: Seed of the initial weights and of dropout.

    Returns:
        A model image ``(batch, *spatial, channels)`` → logits ``(batch, *spatial, num_classes)``, float32.

    Raises:
        UserError: A level's size is not a multiple of the next coarser one's.
    """
    *skips, bottom = pyramid_outputs(encoder)
    rank = len(bottom.shape) - 2
    x = encoder.output
    if x is not bottom:
        x = layers.up_sampling(rank, _factor(bottom, x), name="decoder_unpool")(x)
    settings = {"normalization": normalization, "dropout": dropout, "seed": seed}
    for level, skip in reversed(list(enumerate(skips))):
        name, filters = f"decoder_level_{level}", skip.shape[-1]
        x = layers.transposed_convolution(rank, filters, _factor(skip, x), seed=seed, name=f"{name}_up")(x)
        x = keras.layers.Concatenate(name=f"{name}_concat")([x, skip])
        x = blocks.plain_block(x, filters, **settings, name=name)
    stem = _factor(encoder.input, x) if _is_coarser(x, encoder.input) else None
    if stem:
        filters = max(1, x.shape[-1] // 2)
        x = layers.transposed_convolution(rank, filters, stem, seed=seed, name="decoder_stem_up")(x)
        x = blocks.plain_block(x, filters, **settings, name="decoder_stem")
    logits = layers.logits_convolution(rank, num_classes, seed=seed, name="decoder_logits")(x)
    return keras.Model(encoder.input, logits, name="segmentation")


def _is_coarser(x: Tensor, image: Tensor) -> bool:
    """Whether ``x`` is known to be smaller than the image; a size that is not known counts as equal."""
    sizes = zip(x.shape[1:-1], image.shape[1:-1], strict=True)
    return any(small is not None and large is not None and small < large for small, large in sizes)


def _factor(fine: Tensor, coarse: Tensor) -> tuple[int, ...]:
    """Return the enlargement of each axis from ``coarse`` to ``fine``; 2 where a size is not known."""
    sizes = list(zip(fine.shape[1:-1], coarse.shape[1:-1], strict=True))
    if any(large is not None and small is not None and large % small for large, small in sizes):
        raise UserError(
            f"data_dim: a decoder cannot enlarge a map of size {coarse.shape[1:-1]} to {fine.shape[1:-1]}; "
            "use sizes that every pooling divides, such as multiples of 32"
        )
    return tuple(2 if large is None or small is None else large // small for large, small in sizes)
