"""Networks that restore views and compare their codes at every scale of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models import restoration, siamese
from self_supervised_3d_tasks.models.decoders import unet
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Model, Tensor

WEIGHT_LAYER = "restoration_weight"


@dataclass(frozen=True)
class MultiScaleNetwork:
    """The network of PCRLv2 (Zhou et al. 2023): two global views are restored, and all views compared.

    Args:
        global_shape: ``(*spatial, channels)`` of a global view.
        local_shape: ``(*spatial, channels)`` of a local view.
        num_local_views: Number of local views, 0 for none.
        head: Kind of the restoration heads, see `restoration.restoration_head`.
        normalization: Normalization of every convolution on the way up.
        dropout: Dropout rate inside the blocks on the way up, in [0, 1); None: 0.
    """

    global_shape: tuple[int, ...]
    local_shape: tuple[int, ...]
    num_local_views: int
    head: Literal["paper", "code"]
    normalization: Normalization | None
    dropout: float | None

    def build(self, encoder: Model, *, seed: int, name: str) -> Model:
        """Return the model from views to the terms of a loss at every scale.

        Its inputs are "global_views" and "targets" ``(batch, 2, *global_shape)`` and, if there are any, "local_views"
        ``(batch, num_local_views, *local_shape)``. Its output is ``(batch, scales, 4 + 2 num_local_views)``, float32,
        scales from coarse to fine: the mean squared error of each global view's restoration, the comparison of the
        global views, that of each pair (local, global) with the global views varying fastest, and the weight of the
        layer `WEIGHT_LAYER`, which is 1 until a callback sets it.

        Args:
            encoder: The encoder for views of any size; it stays one layer of the model.
            seed: Seed of the initial weights and of dropout.
            name: Name of the model.
        """
        inputs = {key: keras.Input((2, *self.global_shape), name=key) for key in ("global_views", "targets")}
        batches = [inputs["global_views"][:, 0], inputs["global_views"][:, 1]]
        if self.num_local_views:
            inputs["local_views"] = keras.Input((self.num_local_views, *self.local_shape), name="local_views")
            batches.append(keras.ops.reshape(inputs["local_views"], (-1, *self.local_shape)))
        decoder = self._decoder(encoder, seed)
        # A call for each, as one batch of all would mix their statistics.
        pyramids = [decoder(encoder(batch)) for batch in batches]
        scales = enumerate(zip(*pyramids, strict=True), start=1)
        terms = [self._terms(number, maps, inputs["targets"], seed) for number, maps in scales]
        terms = keras.ops.stack(terms, axis=1)
        # The weight as a column of its own: ones times a variable.
        fixed = {"kernel_initializer": "ones", "trainable": False, "dtype": "float32"}
        weight = keras.layers.EinsumDense("bsc,c->bsc", (None, 1), **fixed, name=WEIGHT_LAYER)
        weight = weight(keras.ops.ones_like(terms[:, :, :1]))
        return keras.Model(inputs, keras.ops.concatenate([terms, weight], axis=-1), name=name)

    def _decoder(self, encoder: Model, seed: int) -> Model:
        """Return the model from the encoder's output, of any size, to the maps of all scales: one chain of layers."""
        bottom = keras.Input(encoder.output.shape[1:], name="bottom")
        options = {"normalization": self.normalization, "dropout": self.dropout, "seed": seed}
        maps = unet.way_up(bottom, unet.levels_above(encoder, self.global_shape[:-1]), **options)
        return keras.Model(bottom, maps, name="decoder")

    def _terms(self, number: int, maps: Sequence[Tensor], targets: Tensor, seed: int) -> Tensor:
        """Return the terms of one scale, ``(batch, 3 + 2 num_local_views)``."""
        head = restoration.restoration_head(
            maps[0].shape[1:],
            self.global_shape,
            kind=self.head,
            normalization=self.normalization,
            seed=seed,
            name=f"restoration_{number}",
        )
        restored = keras.ops.stack([head(maps[view]) for view in range(2)], axis=1)
        errors = keras.ops.square(restored - targets)
        errors = keras.ops.mean(errors, axis=tuple(range(2, len(targets.shape))))
        comparisons = self._comparisons(siamese.branches(maps, seed=seed, name=f"scale_{number}"))
        return keras.ops.concatenate([errors, comparisons], axis=1)

    def _comparisons(self, branches: Sequence[siamese.Branch]) -> Tensor:
        """Return the comparisons of all pairs, ``(batch, 1 + 2 num_local_views)``."""
        first, second, *rest = branches
        terms = [siamese.comparison(first, second)[:, None]]
        for local in rest:
            number, size = self.num_local_views, local.code.shape[-1]
            # (batch, local, 1, size) with (batch, 1, global, size)
            local = siamese.Branch(*(keras.ops.reshape(x, (-1, number, 1, size)) for x in local))
            both = siamese.Branch(*(keras.ops.stack(pair, axis=1)[:, None] for pair in zip(first, second, strict=True)))
            terms.append(keras.ops.reshape(siamese.comparison(local, both), (-1, 2 * number)))
        return keras.ops.concatenate(terms, axis=1)


def restorer(model: Model) -> Model:
    """Return the model from what the encoder of a multi-scale network sees to the image restored at the finest scale.

    Args:
        model: The model of `MultiScaleNetwork.build`; the result shares its weights.
    """
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    head = model.get_layer(f"restoration_{len(decoder.outputs)}")
    image = keras.Input(encoder.input_shape[1:], name="image")
    x = encoder(image)
    # Both are chains; laid out layer by layer, the decoder is one as in any other network.
    for layer in (*decoder.layers, *head.layers):
        x = x if isinstance(layer, keras.layers.InputLayer) else layer(x)
    return keras.Model(image, x, name="restorer")


def codes(model: Model) -> dict[str, Tensor]:
    """Return the codes of both global views at each scale, ``(batch, 2, size)``, coarse to fine.

    "scale_1" is what is compared. "scale_1_pooled" is what it was before the normalization, which stretches whatever is
    left; means of positive values, all of which lie in nearly the same direction.

    Args:
        model: The model of `MultiScaleNetwork.build`.
    """
    found = {}
    for number in range(1, 1 + len(model.get_layer("decoder").outputs)):
        for name, layer in ((f"scale_{number}", "code"), (f"scale_{number}_pooled", "pooled")):
            pair = [model.get_layer(f"scale_{number}_{layer}_{view}").output for view in (1, 2)]
            found[name] = keras.ops.stack(pair, axis=1)
    return found
