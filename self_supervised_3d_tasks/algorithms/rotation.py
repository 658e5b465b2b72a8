"""Rotation prediction: by which multiple of 90 degrees, about which axis, was the scan turned?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.classifying import ClassifyingAlgorithm
from self_supervised_3d_tasks.algorithms.kinds import TurningAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.ops import geometry, seeds
from self_supervised_3d_tasks.ops.sampling import Sampling


@dataclass(kw_only=True, eq=False)
class Rotation(ClassifyingAlgorithm, TurningAlgorithm):
    """Rotation prediction, from 2D (Gidaris et al. 2018) carried to 3D.

    Taleb et al. 2020, "3D Self-Supervised Methods for Medical Imaging", section 3.4. A scan is turned by a
    class drawn uniformly, and the class is to be recognised. In 3D there are ten classes, the identity and
    90, 180, 270 degrees about each axis; in 2D four. Rotations are exact transpositions and reversals:
    resampling would blur, and the blur would betray the class.

    Args:
        input_shape: ``(*spatial, channels)``.
        top_architecture: The head on the flattened map: an MLP, or one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        rotation_axes: "auto" offers the classes that keep the shape of the scan, numbered anew from 0, and only those
            that exchange axes of one spacing, which were resampled or padded alike: the blur along a coarse axis that
            was enlarged, or a border of zeros, would betray the class. "all" insists on every class, which needs equal
            edges.
        dropout_rate: Dropout rate of the MLP.

    Raises:
        UserError: "all" with unequal edges.
    """

    sampling = Sampling(flips_keep_labels=False)

    rotation_axes: Literal["auto", "all"] = "auto"

    def __post_init__(self) -> None:
        """Find the rotations that keep the shape of a scan."""
        super().__post_init__()
        if self.rotation_axes == "all" and len(set(self.spatial_shape)) > 1:
            raise UserError(
                f'rotation_axes, data_dim: "all" needs equal edges because some rotations swap axes, received '
                f'{list(self.spatial_shape)}; use "auto" or an equal data_dim'
            )
        self.classes = geometry.rotation_classes(self.input_shape, self.rotation_axes)
        self.num_classes = len(self.classes)

    def keep_apart(self, pairs: Collection[tuple[int, int]], axes: Collection[int]) -> None:
        """Leave out the classes that the preparation of the scans gives away, unless "all" insists on them."""
        kept = [
            (k, plane)
            for k, plane in self.classes
            if k == 0 or not (set(plane) & set(axes) or (k % 2 and tuple(sorted(plane)) in pairs))
        ]
        left_out = len(self.classes) - len(kept)
        if not left_out:
            return
        unlike = [
            *(f"axes {a} and {b} differ" for a, b in sorted(pairs)),
            *(f"axis {a} is uneven" for a in sorted(axes)),
        ]
        reason = f"{', '.join(unlike)} in spacing, resampling or padding"
        if self.rotation_axes == "all":
            self.kept_apart = f"{reason}, which tells {left_out} of {self.num_classes} classes without the anatomy"
            return
        if len(kept) == 1:
            raise UserError(
                f"rotation_axes, data_dim, volume_fitting: no turn is left, because {reason} would tell it; bring the "
                "scans to data_dim without padding them unevenly"
            )
        self.classes, self.num_classes = kept, len(kept)
        self.kept_apart = f"{left_out} classes are left out: {reason} would tell them"

    def settings(self) -> dict[str, Any]:
        """Return what each class means."""
        return {"classes": [{"quarter_turns": k, "axes": list(axes)} for k, axes in self.classes]}

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the turned scan ``(*spatial, channels)`` and its class, an int32 scalar."""
        image = tf.ensure_shape(image, self.input_shape)
        label = tf.random.stateless_uniform((), seeds.fold(seed, 0), 0, self.num_classes, tf.int32)
        return tf.ensure_shape(geometry.rotate(image, label, self.classes), self.input_shape), label

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return scan -> logits ``(batch, classes)``: the flattened map of the encoder under the head."""
        image = keras.Input(self.input_shape, name="image")
        return keras.Model(image, self.logits(encoder(image), seed=seed), name=self.name)

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the turned scan under its class."""
        k, axes = self.classes[int(targets)]
        turn = f"{90 * k}° in the plane of axes {axes[0]}, {axes[1]}" if k else "not turned"
        return [Panel(f"class {int(targets)}: {turn}", np.asarray(inputs))]
