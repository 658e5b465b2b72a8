"""Parts2Whole: from an enlarged part of a scan, reconstruct the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import PositiveShare, ShareBelowOne
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.decoders import unet
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.ops import boxes, geometry, global_batch, intensity, seeds
from self_supervised_3d_tasks.scores import logged


@dataclass(kw_only=True, eq=False)
class Parts2Whole(RestoringAlgorithm):
    """Parts2Whole (Feng et al. 2020, "Self-supervised Contrastive Learning via Reconstruction").

    A box of the scan, resized to the size of the scan, goes through the encoder and up again without any skip
    connection; the result is compared with the scan. All parts of a scan are to give the same image and parts of
    different scans different ones, so the encoder's last map has to tell scans apart. What it learned is more than
    nothing where the loss is below the metric mean_image_mse. Wholes that lie alike, such as heads, can leave the
    network at their mean: the paper's are crops of scans (volume_fitting crop). It gives neither code nor the
    interpolation, the sampler and the output; those here are one reading of it.

    Args:
        input_shape: ``(*spatial, channels)`` of the whole, in [0, 1].
        part_volume: Least and largest share of the whole's voxels that a part has; the whole itself is no part.
        max_aspect: How much a side of a part can differ from the whole's shape, see `boxes.RandomBox`.
        intensity_jitter: a: brightness of the part + U(±a), contrast · U(1 ± a), so that its histogram does not tell
            the scan; the paper names it as future work. The target stays as it is.
        normalization: Normalization of every convolution, in the encoder and on the way up; default: group.
        dropout: Dropout rate inside the blocks, in the encoder and on the way up; default: 0.

    Raises:
        UserError: No part has such a volume.
    """

    part_volume: tuple[PositiveShare, PositiveShare] = (1 / 16, 1 / 4)
    max_aspect: Annotated[float, Field(ge=1, le=1000)] = 4 / 3
    intensity_jitter: ShareBelowOne = 0.0
    normalization: Normalization | None = None
    dropout: ShareBelowOne | None = None

    def __post_init__(self) -> None:
        """Check that there is a part."""
        self.parts = boxes.RandomBox(self.spatial_shape, self.part_volume, self.max_aspect)

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the part ``(*spatial, channels)``, and the whole with one more channel: 1 where the part lies.

        That channel is for pictures and analyses; neither the loss nor the model sees it.
        """
        image = tf.ensure_shape(image, self.input_shape)
        origin, size = self.parts.draw(seeds.fold(seed, 0))
        part = geometry.resize_box(image, origin, size)
        part = intensity.jitter(part[tf.newaxis], seed, self.intensity_jitter)[0]
        paddings = tf.stack([origin, self.spatial_shape - origin - size], axis=1)
        place = tf.ensure_shape(tf.pad(tf.ones(size), paddings), self.spatial_shape)
        return part, tf.concat([image, place[..., tf.newaxis]], axis=-1)

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return part -> reconstruction ``(batch, *spatial, channels)`` in [0, 1], float32."""
        part = keras.Input(self.encoder_shape, name="part")
        # The way up knows the sizes of the encoder's maps but not the maps: nothing can pass the last one by.
        options = {"normalization": self.normalization, "dropout": self.dropout, "seed": seed}
        x = unet.way_up(encoder(part), unet.levels_above(encoder), **options)[-1]
        logits = layers.logits_convolution(self.rank, self.input_shape[-1], seed=seed, name="decoder_logits")(x)
        whole = keras.layers.Activation("sigmoid", dtype="float32", name="decoder_whole")(logits)
        return keras.Model(part, whole, name=self.name)

    def restorer(self, model: keras.Model) -> keras.Model:
        """Return the model itself: part -> whole."""
        return model

    def restorations(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Return parts and wholes, each ``(batch, 1, *spatial, channels)``."""
        return inputs[:, None], targets[:, None, ..., :-1]

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean squared error over voxels and channels, float32, ``(batch,)``.

        Args:
            y_true: ``(batch, *spatial, channels + 1)`` from `make_example`.
            y_pred: Reconstructions ``(batch, *spatial, channels)``.
        """
        return self._mean_square(self._wholes(y_true) - keras.ops.cast(y_pred, "float32"))

    def metrics(self) -> list[Any]:
        """Return what the loss has to be compared with, `mean_image_mse`, which is the same for any model."""
        return [logged.weighted_mean("mean_image_mse", self.mean_image_mse)]

    def mean_image_mse(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return the squared error of the best answer that does not look at the part, and each scan's weight.

        That is the mean of all wholes. Here it is estimated from the scans of a batch, as their variance at each
        voxel (divided by batch - 1, as the batch's own mean lies too near to them). A single scan tells nothing and
        has no weight; crops of one scan in one batch are too alike and make it too small.

        Returns:
            Values and weights, each ``(batch,)``.
        """
        ops, wholes = keras.ops, self._wholes(y_true)
        # One row per device, not the images of all.
        number = ops.sum(global_batch.gather(ops.reshape(ops.cast(ops.shape(wholes)[0], "float32"), (1,))))
        mean = ops.sum(global_batch.gather(ops.sum(wholes, axis=0, keepdims=True)), axis=0, keepdims=True) / number
        values = self._mean_square(wholes - mean) * number / ops.maximum(number - 1, 1.0)
        return values, keras.ops.ones_like(values) * keras.ops.cast(number > 1, "float32")

    def _wholes(self, y_true: Any) -> Any:
        return keras.ops.cast(y_true[..., :-1], "float32")

    def _mean_square(self, difference: Any) -> Any:
        return keras.ops.mean(keras.ops.square(difference), axis=tuple(range(1, self.rank + 2)))

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the whole, the part where it lies, and the part as the encoder sees it."""
        whole, place = np.split(np.asarray(targets), [-1], axis=-1)
        share = f"{place.mean():.0%}"
        return [
            Panel("whole: to be reconstructed", whole),
            Panel(f"part in it: {share} of the volume", np.where(place > 0, whole, whole / 3)),
            Panel("input: the part, enlarged", np.asarray(inputs)),
        ]
