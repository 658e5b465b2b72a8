"""Exemplar networks: another view of a scan is to lie nearer to it than another scan does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import PositiveFloat, ShareBelowOne, Units
from self_supervised_3d_tasks.losses import contrastive
from self_supervised_3d_tasks.losses import triplet as triplet_losses
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.ops import augment, global_batch, seeds
from self_supervised_3d_tasks.ops.sampling import Sampling


@dataclass(kw_only=True, eq=False)
class Exemplar(ComparingAlgorithm):
    """Exemplar networks, from 2D (Dosovitskiy et al. 2014) carried to 3D, with a triplet loss.

    Taleb et al. 2020, "3D Self-Supervised Methods for Medical Imaging", section 3.5. The anchor is a randomly
    changed copy of a scan, the positive the scan itself, the negative another scan. With codes of one shared
    head, the loss of a scan is max(0, D(anchor, positive) - D(anchor, negative) + alpha): alpha for codes that
    tell nothing. Another scan is another file: of 2D slices, neighbours of one volume count as different.

    Args:
        input_shape: ``(*spatial, channels)``.
        code_size: Width of a scan's code.
        alpha: Margin of the loss.
        sample_neg_examples_from: "batch": the negatives of an anchor are the originals of the other scans of
            the batch, whose codes exist anyway; "dataset": one other scan of the same part of the split is
            read and encoded for each.
        triplet_mining: Which negative of the batch: "random"; "hard", the nearest; "semihard", the nearest
            that is farther than the positive, or else the farthest.
        exemplar_distance: "l2": squared L2 distance of codes of unit length, in [0, 4], so that the margin can
            be reached; "sigmoid_mse": the predecessor's mean squared difference of sigmoids, in [0, 1].
        exemplar_augment: What changes the anchor, see `augment.draw_view`. The default is the paper's; the
            predecessor's is without translation but with rotation and zoom.
        max_translation: Largest translation, as a share of each axis.

    Raises:
        UserError: Nothing that changes the anchor, or mining among negatives from the dataset, which gives one.
    """

    # Of pretraining: at 1e-3, the default of the other tasks, the codes of small batches collapse in the first epoch.
    default_lr = 1e-4

    code_size: Units = 1024
    alpha: PositiveFloat = 1.0
    sample_neg_examples_from: Literal["batch", "dataset"] = "batch"
    triplet_mining: Literal["random", "hard", "semihard"] = "random"
    exemplar_distance: Literal["l2", "sigmoid_mse"] = "l2"
    exemplar_augment: tuple[augment.Transformation, ...] = ("flip", "translation", "brightness", "contrast")
    max_translation: ShareBelowOne = 0.125

    def __post_init__(self) -> None:
        """Check that something changes the anchor and that there are negatives to mine."""
        from_dataset = self.sample_neg_examples_from == "dataset"
        if from_dataset and self.triplet_mining != "random":
            raise UserError(
                f'triplet_mining, sample_neg_examples_from: "{self.triplet_mining}" chooses among the scans of a '
                'batch, but the dataset gives one negative; use "random", or take negatives from "batch"'
            )
        if not self.exemplar_augment:
            raise UserError(
                "exemplar_augment: expected at least one transformation, received none: the anchor would equal the "
                "positive, which any code solves; leave the key out for the paper's"
            )
        if self.exemplar_augment == ("translation",) and self.max_translation * max(self.spatial_shape) < 1:
            raise UserError(
                f"exemplar_augment, max_translation: a translation by at most {self.max_translation:g} of "
                f"{max(self.spatial_shape)} voxels moves nothing: anchor and positive are one; raise max_translation"
            )
        self.sampling = Sampling(companions=1) if from_dataset else Sampling(min_batch=2, distinct_scans=True)
        self.num_views = 2 + self.sampling.companions  # anchor, positive and, from the dataset, the negative

    def make_example(self, image: tf.Tensor, seed: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the anchor, the positive and the companion, and the draw of a negative.

        Returns:
            Views ``(views, *spatial, channels)``, and a number in [0, 1): a quantile among the other scans of
            the batch, resolved in the loss, where their number is known.
        """
        image = tf.ensure_shape(image, self.input_shape)
        change = augment.draw_view(
            seeds.fold(seed, 0), self.spatial_shape, self.exemplar_augment, max_translation=self.max_translation
        )
        views = tf.stack([augment.apply(image, change), image, *others])
        views = tf.ensure_shape(views, (self.num_views, *self.input_shape))
        return views, tf.random.stateless_uniform((), seeds.fold(seed, 1))

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return views ``(batch, views, *spatial, channels)`` -> codes ``(batch, views, code_size)``, float32."""
        inputs = keras.Input((self.num_views, *self.encoder_shape), name="views")
        codes = encoder(keras.ops.reshape(inputs, (-1, *self.encoder_shape)))
        codes = keras.layers.Flatten(name="flatten")(codes)
        codes = layers.dense(self.code_size, seed=seed, name="code")(codes)
        codes = keras.ops.cast(codes, "float32")
        codes = triplet_losses.unit_length(codes) if self.exemplar_distance == "l2" else keras.ops.sigmoid(codes)
        return keras.Model(inputs, keras.ops.reshape(codes, (-1, self.num_views, self.code_size)), name=self.name)

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return the triplet loss of each scan, float32, ``(batch,)``.

        Args:
            y_true: ``(batch,)`` quantiles of the random negatives; other negatives do not look at them.
            y_pred: Codes ``(batch, views, code_size)``.

        Raises:
            ValueError: Negatives from a batch of one scan; the loss is NaN where only the graph's run knows.
        """
        positive, negative = self._distances(y_true, y_pred, self.triplet_mining)
        return triplet_losses.triplet_loss(positive, negative, margin=self.alpha)

    def metrics(self) -> list[Any]:
        """Return the share of scans whose positive is nearer than the negative.

        It is about 1/2 for random codes, and 0 for equal ones.

        The negative is a random one with any mining, so that runs with different minings compare.
        """
        return [self.accuracy]

    def accuracy(self, y_true: Any, y_pred: Any) -> Any:
        """Return per scan whether the positive is nearer than a random negative: 1 or 0, ``(batch,)``."""
        positive, negative = self._distances(y_true, y_pred, "random")
        return keras.ops.cast(positive < negative, "float32")

    def _distances(self, y_true: Any, y_pred: Any, mining: str) -> tuple[Any, Any]:
        """Return the distances of the anchors to their positives and to their negatives, each ``(batch,)``."""
        anchor, original = y_pred[:, 0], y_pred[:, 1]
        positive = self._distance(anchor, original)
        if self.sample_neg_examples_from == "dataset":
            return positive, self._distance(anchor, y_pred[:, 2])
        original = global_batch.gather(original)
        if original.shape[0] == 1:
            raise ValueError("exemplar: a batch of one scan holds no negative for it; at least 2 are needed")
        ops, number = keras.ops, keras.ops.shape(original)[0]
        own = ops.arange(ops.shape(anchor)[0], dtype="int32") + global_batch.first_row(anchor)
        is_negative = own[:, None] != ops.arange(number, dtype="int32")[None]
        # (anchors, originals)
        distances = self._distance(anchor[:, None], original[None])
        if mining == "random":
            index = contrastive.other_index(ops.reshape(y_true, (-1,)), own, number)
            index = ops.maximum(index, 0)  # of a single scan, whose loss is NaN below
            negative = ops.take_along_axis(distances, index[:, None], axis=1)[:, 0]
        elif mining == "hard":
            negative = triplet_losses.hard_negative(distances, is_negative)
        else:
            negative = triplet_losses.semihard_negative(positive[:, None], distances, is_negative)[:, 0]
        return positive, ops.where(number > 1, negative, float("nan"))

    def _distance(self, a: Any, b: Any) -> Any:
        """Return D along the last axis; the other axes broadcast."""
        distance = triplet_losses.squared_distance(a, b)
        return distance if self.exemplar_distance == "l2" else distance / self.code_size

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the anchor, the original, and the negative where it is part of the example."""
        titles = ("anchor: changed at random", "positive: the scan", "negative: another scan")
        return [Panel(title, np.asarray(view)) for title, view in zip(titles, inputs, strict=False)]
