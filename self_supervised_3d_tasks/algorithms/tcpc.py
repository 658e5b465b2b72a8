"""Task-related contrastive predictive coding: from a path of cubes, predict the code of the cube that it encloses."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm, SelectiveAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import (
    Distance,
    Divisor,
    PositiveFew,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareBelowOne,
    Strength,
    Units,
)
from self_supervised_3d_tasks.losses import contrastive, triplet
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.ops import cell_paths, global_batch, intensity, patches, seeds, supervoxels
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.scores import logged

_NEVER = -1e9  # the logit of what is no candidate; finite, since infinity times a gradient of 0 is NaN


@dataclass(kw_only=True, eq=False)
class TCPC(ComparingAlgorithm, SelectiveAlgorithm):
    """Task-related contrastive predictive coding in 3D, and in 2D by the same lines.

    Zhu et al. 2020, "Embedding Task Knowledge into 3D Neural Networks via Self-supervised Learning". The input is
    a sub-volume of a scan, centred on a supervoxel: a region of like intensity, which holds more than background
    does, though with as few as the paper has, a small lesion is but a part of one. It is cut into 3 x 3 cubes over
    the first two axes, of full length along a third. N cubes along a path are the support. A GRU reads their codes
    in the order of the path, and one linear layer predicts the code of the target cube.

    The prediction is compared with all cubes of all sub-volumes of the batch, by the cosine over ``temperature``.
    InfoNCE picks the true target among them: log(batch · (N + 1)) where all codes are alike, which is chance.
    "binary" takes each comparison by itself, with the logit u = prediction · code / sqrt(code_size):
    softplus(-u) of the target plus the mean softplus(u) of the others; 2 log 2 for logits of 0. It is as close to
    the printed equation 3 as a loss can be that does its work.

    With cubes that overlap by half, as the paper has them, every voxel of the target lies in the support. What
    keeps a code from being copied: each cube is shifted in the plane on its own, and has its own brightness and
    contrast. Only without overlap is nothing shared. Batch normalization over the cubes of two scans lets a code
    tell its scan, which is half the answer; group normalization does not.

    Args:
        input_shape: ``(*spatial, channels)`` of a sub-volume.
        num_segments: About how many supervoxels a scan is cut into; the paper has 10 to 20.
        slic_preset: Defaults of the two keys that follow: "paper" smooths by 10 voxels, "ours" by 1.
        slic_compactness: Weight of the distance in space over that of intensities in [0, 1]; None: the preset's.
        slic_sigma: Width of the Gaussian that smooths the scan beforehand; None: the preset's.
        supervoxel_foreground: Supervoxels with a smaller share of foreground are left out.
        cube_overlap: Share of its edge that a cube has in common with the next, in [0, 1). The edge is
            L / (3 - 2 overlap), rounded up: 24 of 48 voxels at 0.5, beginning at 0, 12 and 24.
        cube_path: Cells (row, column) of the support in the order that the GRU reads them, each beside the one
            before; or "u", which goes down on one side, along the bottom and up on the other; or "spiral", which
            closes it: all eight cubes around the one in the middle.
        target_cube: The cell whose code is predicted.
        cube_jitter: Largest shift of a cube along each of the first two axes, in voxels; a cube at the border
            stays inside. None: 1/6 of the distance between cubes, at least 1, or 0 without overlap, where it would
            make one.
        intensity_jitter: a, in [0, 1): a cube's brightness changes by up to ± a, its contrast by a factor in
            1 ± a.
        code_size: Width of a cube's code.
        context_units: Width of the GRU.
        pool_bins: The encoder's map is averaged over that many bins per axis before it becomes a code.
        tcpc_mode: "info_nce" or "binary".
        temperature: Divides the cosines; "binary" does not look at it.
        exclude_adjacent_negatives: Leave out the own support cubes that overlap the target: they hold parts of
            it, so that telling them from it is no virtue.
        min_foreground: A sub-volume counts where every cube has at least this share of tissue: in the others the
            outline of the body tells the target. Tissue is above 5 % of the range, or a hole of two voxels in it. 0:
            every sub-volume counts.

    Raises:
        UserError: A path that is none, a target in it, or cubes that do not fit or could change places.
    """

    num_segments: PositiveInt = 15
    slic_preset: Literal["ours", "paper"] = "ours"
    slic_compactness: PositiveFloat | None = None
    slic_sigma: Strength | None = None
    supervoxel_foreground: Share = 0.15
    cube_overlap: ShareBelowOne = 0.5
    cube_path: Literal["u", "spiral"] | tuple[cell_paths.Cell, ...] = "u"
    target_cube: cell_paths.Cell = (1, 1)
    cube_jitter: Distance | None = None
    intensity_jitter: ShareBelowOne = 0.1
    code_size: Units = 128
    context_units: Units = 256
    pool_bins: PositiveFew = 1
    tcpc_mode: Literal["info_nce", "binary"] = "info_nce"
    temperature: Divisor = 0.1
    exclude_adjacent_negatives: bool = False

    def __post_init__(self) -> None:
        """Lay out the cubes, and check that they fit and keep their order."""
        chosen = {"num_segments": self.num_segments, "min_foreground": self.supervoxel_foreground}
        chosen |= {"compactness": self.slic_compactness, "sigma": self.slic_sigma}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        finder = dataclasses.replace(supervoxels.PRESETS[self.slic_preset], **chosen)
        self.sampling = Sampling(min_batch=2, distinct_scans=True, crop_centres=finder)
        self.path = cell_paths.checked_path(self.cube_path, self.target_cube)
        self.cells = (*self.path, tuple(self.target_cube))  # in the order of the cubes
        plane = self.spatial_shape[:2]
        # The shortest edges of three cubes that cover the plane; rounded against 10.000000000000002.
        edges = [math.ceil(size / (3 - 2 * self.cube_overlap) - 1e-9) for size in plane]
        self.cube_shape = (*edges, *self.spatial_shape[2:])
        pairs = zip(plane, edges, strict=True)
        self.starts = tuple((0, round((size - edge) / 2), size - edge) for size, edge in pairs)
        self.jitter = self._jitter()

    def _jitter(self) -> tuple[int, int]:
        """Return the largest shift along each of the first two axes, after checking that the cubes keep their order."""
        steps = [min(high - low for low, high in itertools.pairwise(starts)) for starts in self.starts]
        if min(steps) < 1:
            raise UserError(
                f"data_dim, cube_overlap: three cubes that share {self.cube_overlap:g} of their edge need different "
                f"places along each of the first two axes, but {list(self.spatial_shape[:2])} voxels leave none for "
                f"cubes of {list(self.cube_shape[:2])}; enlarge data_dim or reduce cube_overlap"
            )
        if self.cube_jitter is None:
            return tuple(min(max(1, step // 6), (step - 1) // 2) if self.cube_overlap > 0 else 0 for step in steps)
        largest = (min(steps) - 1) // 2
        if self.cube_jitter > largest:
            raise UserError(
                f"cube_jitter: at most {largest} where cubes begin every {min(steps)} voxels, received "
                f"{self.cube_jitter}: neighbours could change places; reduce it, or enlarge data_dim"
            )
        return (self.cube_jitter, self.cube_jitter)

    @property
    def encoder_shape(self) -> tuple[int, ...]:
        """``(*cube, channels)``."""
        return (*self.cube_shape, self.input_shape[-1])

    def origin(self, cell: cell_paths.Cell) -> tuple[int, ...]:
        """Return the first voxel of a cell's cube before it is shifted, one index per axis."""
        plane = (starts[index] for starts, index in zip(self.starts, cell, strict=True))
        return (*plane, *[0] * (self.rank - 2))

    @property
    def left_out(self) -> tuple[bool, ...]:
        """For each cube, whether it is no candidate for the prediction of its own sub-volume."""
        distances = np.abs([np.subtract(self.origin(cell), self.origin(self.cells[-1])) for cell in self.path])
        touches = np.all(distances < self.cube_shape, axis=1)  # shares voxels with the target, before both are shifted
        return (*(self.exclude_adjacent_negatives & touches).tolist(), False)

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the cubes ``(N + 1, *cube, channels)``, the target last, and its index N, an int32 scalar.

        The index is -1 where the sub-volume does not count.
        """
        image = tf.ensure_shape(image, self.input_shape)
        number = len(self.cells)
        limits = (*self.jitter, *[0] * (self.rank - 2))
        shifts = patches.draw_offsets(seeds.fold(seed, 0), number, [2 * limit for limit in limits]) - limits
        origins = tf.constant([self.origin(cell) for cell in self.cells]) + shifts
        last = [size - edge for size, edge in zip(self.spatial_shape, self.cube_shape, strict=True)]
        cubes = patches.extract(image, tf.clip_by_value(origins, 0, tf.constant(last)), self.cube_shape)
        target = self.only_if_filled(tf.constant(number - 1), cubes)
        return intensity.jitter(cubes, seed, self.intensity_jitter), target

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return cubes ``(batch, N + 1, *cube, channels)`` -> scores ``(batch, batch, N + 1)``, float32.

        The scores compare each prediction with the codes of all cubes of all sub-volumes of the batch, those of other
        devices included.
        """
        number = len(self.cells)
        inputs = keras.Input((number, *self.encoder_shape), name="cubes")
        codes = encoder(keras.ops.reshape(inputs, (-1, *self.encoder_shape)))
        if len(codes.shape) > 2:
            # The mean of what was just normalized over the same voxels would tell little.
            codes = keras.layers.ReLU(name="relu")(codes)
            codes = layers.adaptive_average_pool(codes, self.pool_bins, name="pool")
        codes = keras.layers.Flatten(name="flatten")(codes)
        codes = layers.dense(self.code_size, seed=seed, name="code")(codes)
        codes = keras.ops.reshape(codes, (-1, number, self.code_size))
        # (batch, N, code_size) -> (batch, context_units) -> (batch, code_size)
        summary = layers.gru(self.context_units, seed=seed, name="context")(codes[:, :-1])
        prediction = layers.dense(self.code_size, seed=seed, name="prediction")(summary)

        codes, prediction = keras.ops.cast(codes, "float32"), keras.ops.cast(prediction, "float32")
        if self.tcpc_mode == "info_nce":
            codes, prediction = triplet.unit_length(codes), triplet.unit_length(prediction)
        scores = keras.ops.einsum("bd,knd->bkn", prediction, global_batch.gather(codes))
        return keras.Model(inputs, scores / self._unit, name=self.name)

    @property
    def _unit(self) -> float:
        """What the products are divided by to become scores."""
        return self.temperature if self.tcpc_mode == "info_nce" else math.sqrt(self.code_size)

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return InfoNCE or the binary loss of each sub-volume's prediction, float32, ``(batch,)``.

        Args:
            y_true: ``(batch,)`` index of the target among the cubes; -1 in a sub-volume that does not count.
            y_pred: Scores ``(batch, batch, N + 1)``.
        """
        logits, positive, is_negative = self._candidates(y_true, y_pred)
        ops, counted = keras.ops, self.complete(y_true, y_pred)
        if self.tcpc_mode == "binary":
            weights = ops.cast(is_negative, "float32")
            count = ops.maximum(ops.sum(weights, axis=1), 1.0)  # a batch of one may leave no negative
            negative = ops.sum(weights * ops.softplus(logits), axis=1) / count
            return (ops.softplus(-positive[:, 0]) + negative) * counted
        logits = ops.concatenate([positive, ops.where(is_negative, logits, _NEVER)], axis=1)
        return contrastive.info_nce(logits[:, None], ops.zeros_like(positive, dtype="int32")) * counted

    def metrics(self) -> list[Any]:
        """Return the accuracy, whose chance level `chance` tells, what the codes do, and how many sub-volumes count."""
        return [logged.weighted_mean("accuracy", self._hits), self.similarity, self.spread, self.complete]

    def _hits(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return whether the target has a higher score than every other candidate, and whether that counts."""
        logits, positive, is_negative = self._candidates(y_true, y_pred)
        # Not by argmax: a tie, as between collapsed codes, is no hit.
        best = keras.ops.max(keras.ops.where(is_negative, logits, _NEVER), axis=1)
        return keras.ops.cast(positive[:, 0] > best, "float32"), self.complete(y_true, y_pred)

    def similarity(self, y_true: Any, y_pred: Any) -> Any:
        """Return the cosine of prediction and target, ``(batch,)``; with "binary", which has none, their product."""
        return self._candidates(y_true, y_pred)[1][:, 0] * self._unit

    def spread(self, y_true: Any, y_pred: Any) -> Any:
        """Return the standard deviation of each prediction's cosines with all cubes of the batch, ``(batch,)``.

        0 says that all codes are alike: they have collapsed. With "binary" it is that of the products.
        """
        return keras.ops.std(self._candidates(y_true, y_pred)[0], axis=1) * self._unit

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return the accuracy of a guess among the candidates."""
        return {"accuracy": 1 / (scans_per_step * len(self.cells) - sum(self.left_out))}

    def _candidates(self, y_true: Any, scores: Any) -> tuple[Any, Any, Any]:
        """Return all logits, those of the targets, and which are of negatives.

        Logits and booleans are ``(batch, candidates)``, a candidate is a (scan, cube) with the cube fastest; the logits
        of the targets are ``(batch, 1)``.
        """
        ops, number = keras.ops, len(self.cells)
        batch, others = ops.shape(scores)[0], ops.shape(scores)[1]
        logits = ops.reshape(ops.cast(scores, "float32"), (batch, others * number))
        scan = ops.arange(batch, dtype="int32")[:, None] + global_batch.first_row(scores)
        candidate = ops.arange(others * number, dtype="int32")[None]
        own = scan * number + ops.reshape(ops.maximum(ops.cast(y_true, "int32"), 0), (-1, 1))
        left_out = ops.take(ops.convert_to_tensor(self.left_out, "bool"), candidate % number)
        left_out = ops.logical_and(left_out, candidate // number == scan)
        positive = ops.take_along_axis(logits, own, axis=1)
        return logits, positive, ops.logical_not(ops.logical_or(left_out, candidate == own))

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the support in the order of the path, and the target."""
        titles = [f"support {place} {cell}" for place, cell in enumerate(self.path, start=1)]
        titles.append(f"target {self.cells[-1]}")
        return [Panel(title, np.asarray(cube)) for title, cube in zip(titles, inputs, strict=True)]
