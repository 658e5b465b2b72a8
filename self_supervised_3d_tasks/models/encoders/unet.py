"""The downward path of a U-Net, in the predecessor's form and in that of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import ShareBelowOne, Units
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.encoders import PYRAMID_PREFIX
from self_supervised_3d_tasks.models.encoders.base import check_size
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Model, Tensor


class Preset(NamedTuple):
    """What a preset fixes.

    Attributes:
        filters: Filters of the first level.
        block: The two convolutions of a level.
        normalization: Their normalization where the key is not given.
        momentum: Momentum of a batch normalization.
        dropout: Dropout rate where the key is not given.
    """

    filters: int
    block: Callable[..., Tensor]
    normalization: Normalization
    momentum: float
    dropout: float


PRESETS = {
    "plain": Preset(16, blocks.plain_block, "group", layers.MOMENTUM, 0.0),
    "upstream": Preset(16, blocks.plain_block, "batch", 0.99, 0.5),
    "paper": Preset(32, blocks.residual_block, "group", layers.MOMENTUM, 0.0),
}
PresetName = Literal["plain", "upstream", "paper"]


def unet(
    input_shape: tuple[int | None, ...],
    *,
    enc_filters: Units | None = None,
    num_layers: Annotated[int, Field(ge=1, le=16)] = 4,
    unet_preset: PresetName = "plain",
    pooling: Literal["max", "avg", "none"] = "max",
    normalization: Normalization | None = None,
    dropout: ShareBelowOne | None = None,
    dropout_change_per_layer: Annotated[float, Field(ge=-1, le=1)] = 0.0,
    seed: int = 0,
) -> Model:
    """Build the encoder of a U-Net.

    ``num_layers`` blocks, each followed by a max-pooling by 2, then a bottom block and a final pooling.
    ``"plain"`` has the predecessor's blocks, layer order and parameter counts, with a normalization that does not
    depend on the batch and without dropout, which few steps on few scans do not pay for. ``"upstream"`` is the
    predecessor's network as it was, with a batch normalization that keeps 0.99 of its running statistics in a step
    and half of the units dropped: from scratch it needs more than a thousand steps. ``"paper"`` has the residual
    blocks of Taleb et al. 2020, "3D Self-Supervised Methods for Medical Imaging", appendix A: five levels with 32,
    64, 128, 256 and 512 filters; what is inside a block it does not say.

    Args:
        input_shape: ``(*spatial, channels)``.
        enc_filters: Filters of the first level, doubled at each further one; default 16, or 32 (paper).
        num_layers: Number of pooled levels; the bottom block comes on top.
        unet_preset: Plain or residual blocks, or the predecessor's network.
        pooling: Pooling by 2 after the bottom block.
        normalization: Normalization of every convolution, see `layers.normalization`; default: group, or batch
            (upstream).
        dropout: Dropout rate inside the first level's block; default: 0, or 0.5 (upstream).
        dropout_change_per_layer: Added to the rate at each further level.
        seed: Seed of the initial weights and of dropout.

    Returns:
        A model named "encoder": image ``(batch, *spatial, channels)`` → the map after the final pooling.

    Raises:
        UserError: ``input_shape`` is too small, or a level's dropout rate leaves [0, 1).
    """
    check_input_shape(input_shape, num_layers=num_layers, pooling=pooling)
    preset = PRESETS[unet_preset]
    rates = _dropout_rates(unet_preset, dropout, dropout_change_per_layer, num_layers + 1)
    settings = {"normalization": normalization or preset.normalization, "momentum": preset.momentum, "seed": seed}
    rank = len(input_shape) - 1
    x = image = keras.Input(input_shape, name="image")
    for level, rate in enumerate(rates):
        if level > 0:
            x = layers.max_pool(rank, 2, name=f"level_{level - 1}_pool")(x)
        filters = (enc_filters or preset.filters) * 2**level
        x = preset.block(x, filters, dropout=rate, **settings, name=f"level_{level}")
        x = keras.layers.Identity(name=f"{PYRAMID_PREFIX}{level}")(x)
    if pooling != "none":
        x = layers.POOLS[pooling](rank, 2, name="final_pool")(x)
    return keras.Model(image, x, name="encoder")


def check_input_shape(
    input_shape: tuple[int | None, ...],
    *,
    num_layers: int = 4,
    unet_preset: PresetName = "plain",
    pooling: str = "max",
    dropout: float | None = None,
    dropout_change_per_layer: float = 0.0,
    decoder: bool = False,
) -> None:
    """Raise if the network cannot take ``input_shape``; loads no Keras.

    Args:
        input_shape: ``(*spatial, channels)`` of what the encoder sees.
        num_layers: Number of pooled levels.
        unet_preset: Gives the dropout rate where there is none.
        pooling: Final pooling; ``"none"`` leaves it out.
        dropout: Dropout rate inside the first level's block.
        dropout_change_per_layer: Added to the rate at each further level.
        decoder: Whether a decoder follows.

    Raises:
        UserError: The sizes do not fit, see `base.check_size`, or a level's dropout rate leaves [0, 1).
    """
    _dropout_rates(unet_preset, dropout, dropout_change_per_layer, num_layers + 1)
    final, spatial = int(pooling != "none"), input_shape[:-1]
    poolings = {'pooling="none"': num_layers}
    poolings |= {f"num_layers={fewer}": fewer + final for fewer in range(num_layers - 1, 0, -1)}
    check_size(
        "unet",
        spatial,
        [2 ** (num_layers + final)] * len(spatial),
        f"{num_layers + final} poolings by 2",
        decoder=decoder,
        settings={setting: [2**count] * len(spatial) for setting, count in poolings.items()},
    )


def _dropout_rates(preset: PresetName, first: float | None, change: float, num_levels: int) -> list[float]:
    first = PRESETS[preset].dropout if first is None else first
    rates = [round(first + level * change, 6) for level in range(num_levels)]
    if not all(0 <= rate < 1 for rate in rates):
        raise UserError(
            "dropout, dropout_change_per_layer: every level's rate must be in [0, 1), but "
            f"{first} and {change} give {rates}; use a smaller change"
        )
    return rates
