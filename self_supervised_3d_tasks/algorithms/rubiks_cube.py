"""Rubik's cube recovery: in which order are the cubes of the scan presented, and which of them are turned?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.patch_tasks import PuzzleAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import Distance, PatchesPerSide, ShareBelowOne, Units
from self_supervised_3d_tasks.losses.classification import categorical_crossentropy
from self_supervised_3d_tasks.models import heads, layers
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.ops import geometry, intensity, patches, permutations, seeds
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.scores import logged

# By rank: the half turns and the plane of each. Quarter turns would change the shape of a cube that is thinner
# along one axis; a single flip would be a mirror image and exchange left and right.
_TURNS = {2: {"half_turn": (0, 1)}, 3: {"horizontal": (1, 2), "vertical": (0, 1)}}
# How many permutations are told apart if nothing else is said.
_NUM_PERMUTATIONS = 100


@dataclass(kw_only=True, eq=False)
class RubiksCube(PuzzleAlgorithm):
    """Rubik's cube recovery.

    Zhuang et al. 2019, "Self-supervised Feature Learning for 3D Medical Images by Playing a Rubik's Cube". The scan is
    cut into a grid of M cubes with gaps between them, which are presented in one of K permuted orders, and some are
    turned by 180 degrees: slot k shows cube ``permutations[class][k]`` of the scan, in raster order. In 3D a turn is
    "horizontal", about axis 0, or "vertical", about the last axis; in 2D there is one. The cubes' codes, concatenated
    in the order presented, go to one head that tells the class and one head per turn that tells for each slot whether
    the cube there was turned so. (The identity may be one of the orders.)

    The loss of a scan is (cross-entropy of the class + Σ over the turns of the mean binary cross-entropy over the
    cubes) / 2, the paper's equal weights, in 3D (log K + 2 log 2) / 2 before training. The paper prints only the
    terms of cubes that are turned, -g log r, which r = 1 for every cube minimises; here those of the others count
    too. Without turns the loss is the cross-entropy of the class alone, log K before training.

    A blank cube, of air or border, shows neither its cell nor a turn. It is presented as it is, but does not count
    where the turns are asked for, and the order is not asked for in a scan with one: its part of the loss is 0. With
    a share c ("complete", a metric) of scans without, the order therefore counts c times as much.

    Args:
        input_shape: ``(*spatial, channels)``.
        patches_per_side: Cubes along each axis: one number for all, or one per axis.
        patch_gap: Voxels that neighbouring cubes are apart at least, one number or one per axis; at most 2 · jitter
            are added. Edges that touch would tell the order. None: an eighth of the cell, at least 1 and
            at most the paper's 10.
        patch_jitter: Largest random shift of a cube in its cell, in voxels, one number or one per axis, drawn for
            each cube and axis. None: an eighth of the cell, at most 4.
        num_permutations: K; None: 100, or all there are where there are fewer.
        permutation_seed: Seed of the choice of the permutations.
        cube_rotation: "exclusive": a cube is turned in one way or not at all, each as likely. "independent": each
            turn with probability 1/2. "none": only the order is asked for, the paper's comparison.
        min_foreground: A cube is blank with a smaller share of tissue: what is above 5 % of the range, or a hole of two
            voxels in it. 0: none is.
        normalization: Normalization of the hidden layers of each head, see `heads.big_fully`; the key is the
            encoder's too.
        scan_normalization: "min_max": the intensities stay in [0, 1], which is what finetuning sees. "mean_max": the
            paper's (x - mean) / max |x - mean| of each channel of the scan, in [-1, 1].
        code_size: Width of a cube's code.
        head_units: Widths of the hidden layers of each head.
        dropout_rate: Dropout rate of the heads.

    Raises:
        UserError: No voxels in a cube, a single cube, or more permutations than there are.
    """

    # A half turn of the scan turns all its cubes; how a scan lay at first could not be told.
    sampling = Sampling(flips_keep_labels=False)
    lost = "the order is not learned from them"

    patches_per_side: PatchesPerSide | tuple[PatchesPerSide, ...] = 2
    patch_gap: Distance | tuple[Distance, ...] | None = None
    patch_jitter: Distance | tuple[Distance, ...] | None = None
    cube_rotation: Literal["exclusive", "independent", "none"] = "exclusive"
    scan_normalization: Literal["min_max", "mean_max"] = "min_max"
    code_size: Units = 64
    head_units: heads.HiddenLayers = (1024,)
    normalization: Normalization | None = None
    dropout_rate: ShareBelowOne = 0.5

    def __post_init__(self) -> None:
        """Lay out the cubes, and check that there are orders to tell apart."""
        cell = patches.PatchCells(self.spatial_shape, self.patches_per_side, 0, 0).cell_shape
        gap, jitter = self.patch_gap, self.patch_jitter
        gap = tuple(min(10, max(1, size // 8)) for size in cell) if gap is None else gap
        jitter = tuple(min(4, size // 8) for size in cell) if jitter is None else jitter
        self.grid = patches.PatchCells(self.spatial_shape, self.patches_per_side, gap, jitter)
        if self.num_patches < 2:
            raise UserError("patches_per_side: a single cube has no order; use at least 2 along an axis")
        self.num_permutations = permutations.checked_size(
            self.num_patches, self.num_permutations, _NUM_PERMUTATIONS, items="cubes"
        )
        self.sampling = heads.sampling(self.sampling, self.normalization)
        self.turns = {} if self.cube_rotation == "none" else _TURNS[self.rank]
        self.all_is_lost = not self.turns  # a cube that is filled still tells of its turns

    def settings(self) -> dict[str, Any]:
        """Return the permutations, which are what a class means, and by name the plane of each turn."""
        return super().settings() | {"turns": {name: list(axes) for name, axes in self.turns.items()}}

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the cubes as presented ``(cubes, *cube, channels)`` and the targets, one int32 vector.

        The targets are the class; for one turn after the other 1 in the slots whose cube is turned so, else 0; and
        1 in the slots whose cube counts, 0 where it is blank: ``(1 + (turns + 1) · cubes,)``.
        """
        image = tf.ensure_shape(image, self.input_shape)
        label, origins = self.draw_order(seed)
        cubes = patches.extract(image, origins, self.grid.patch_shape)
        shown = self.filled(cubes)
        if self.scan_normalization == "mean_max":
            cubes = patches.extract(intensity.centre_scale(image), origins, self.grid.patch_shape)
        turned = self._draw_turns(seeds.fold(seed, 2))
        flags = tf.cast(tf.concat([tf.reshape(turned, [-1]), shown], axis=0), tf.int32)
        return self._turn(cubes, turned), tf.concat([label[tf.newaxis], flags], axis=0)

    def _draw_turns(self, seed: tf.Tensor) -> tf.Tensor:
        """Return ``(turns, cubes)`` booleans: which slots are turned, and how."""
        if self.cube_rotation == "independent":
            return tf.random.stateless_uniform((len(self.turns), self.num_patches), seed) < 0.5
        drawn = tf.random.stateless_uniform((self.num_patches,), seed, 0, 1 + len(self.turns), tf.int32)
        return drawn == 1 + tf.range(len(self.turns))[:, tf.newaxis]  # 0: not at all

    def _turn(self, cubes: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
        """Turn the cubes whose flags are set; doing it twice changes nothing."""
        for (first, second), flags in zip(self.turns.values(), tf.unstack(turned, len(self.turns)), strict=True):
            half_turn = geometry.rot90(cubes, 2, (first + 1, second + 1))  # axis 0 counts the cubes
            cubes = tf.where(tf.reshape(flags, (-1, *[1] * (self.rank + 1))), half_turn, cubes)
        return cubes

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return cubes ``(batch, cubes, *cube, channels)`` -> logits ``(batch, classes + turns · cubes)``."""
        inputs = keras.Input((self.num_patches, *self.encoder_shape), name="cubes")
        # In one call: the branches share the weights and the statistics of batch normalization.
        codes = encoder(keras.ops.reshape(inputs, (-1, *self.encoder_shape)))
        if len(codes.shape) > 2:
            # The mean of what was just normalized over the same voxels would tell little.
            codes = layers.global_pool(self.rank, "avg", name="pool")(keras.layers.ReLU(name="relu")(codes))
        codes = keras.ops.reshape(codes, (-1, self.num_patches, codes.shape[-1]))
        codes = heads.told_apart(codes, self.normalization)
        codes = layers.dense(self.code_size, activation="relu", seed=seed, name="code")(codes)
        codes = keras.ops.reshape(codes, (-1, self.num_patches * self.code_size))
        outputs = {"order": self.num_permutations} | dict.fromkeys(self.turns, self.num_patches)
        options = {"head_units": self.head_units, "normalization": self.normalization}
        options |= {"dropout_rate": self.dropout_rate, "seed": seed}
        logits = [heads.big_fully(codes, number, name=name, **options) for name, number in outputs.items()]
        return keras.Model(inputs, keras.ops.concatenate(logits, axis=-1), name=self.name)

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean of order and turns, see the class, or that of the order alone: ``(batch,)``."""
        ops = keras.ops
        order = categorical_crossentropy(y_true[:, 0], y_pred[:, : self.num_permutations])
        order = order * self.complete(y_true, y_pred)
        if not self.turns:
            return order
        shown = self._shown(y_true)
        values = ops.binary_crossentropy(*self._answers(y_true, y_pred), from_logits=True)
        turns = ops.sum(values * shown[:, None], axis=2) / ops.maximum(ops.sum(shown, axis=1), 1.0)[:, None]
        return (order + ops.sum(turns, axis=1)) / 2

    def metrics(self) -> list[Any]:
        """Return the shares of orders recognised, of right answers by turn, and of scans that are complete."""
        order = logged.weighted_mean("order_accuracy", self._order_hits)
        turns = [
            logged.weighted_mean(f"{name}_accuracy", functools.partial(self._turn_hits, index))
            for index, name in enumerate(self.turns)
        ]
        return [order, *turns, self.complete]

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return the accuracies of a guess at the order and of always saying "not turned", the more frequent answer."""
        not_turned = 0.5 if self.cube_rotation == "independent" else len(self.turns) / (1 + len(self.turns))
        return {"order_accuracy": 1 / self.num_permutations} | {f"{name}_accuracy": not_turned for name in self.turns}

    def complete(self, y_true: Any, y_pred: Any) -> Any:
        """Return 1.0 for a scan without a blank cube, else 0.0: ``(batch,)``."""
        return keras.ops.min(self._shown(y_true), axis=1)

    def _order_hits(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return whether the order is recognised, and the weight of that."""
        hits = logged.accuracy(y_true[:, 0], y_pred[:, : self.num_permutations])
        return hits, self.complete(y_true, y_pred)

    def _turn_hits(self, index: int, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return the share of cubes that count and are answered right about a turn, and how many count."""
        ops = keras.ops
        truth, logits = self._answers(y_true, y_pred)
        shown = self._shown(y_true)
        hits = ops.cast(ops.equal(logits > 0, truth > 0.5), "float32")[:, index]
        counts = ops.sum(shown, axis=1)
        return ops.sum(hits * shown, axis=1) / ops.maximum(counts, 1.0), counts

    def _answers(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return what is true of the turns and the logits of them, each ``(batch, turns, cubes)`` float32."""
        both = y_true[:, 1 : -self.num_patches], y_pred[:, self.num_permutations :]
        shape = (-1, len(self.turns), self.num_patches)
        return tuple(keras.ops.cast(keras.ops.reshape(values, shape), "float32") for values in both)

    def _shown(self, y_true: Any) -> Any:
        """Return 1.0 for a cube that counts, 0.0 for a blank one, ``(batch, cubes)``."""
        return keras.ops.cast(y_true[:, -self.num_patches :], "float32")

    def counts(self, target: np.ndarray) -> bool:
        """Return whether no cube is blank, so that the order is asked for."""
        return bool(np.all(target[-self.num_patches :]))

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the puzzle, its solution, and the first seven cubes with their cells and turns."""
        inputs, flags = np.asarray(inputs), np.asarray(targets)[1:].reshape(-1, self.num_patches) > 0
        undone = np.asarray(self._turn(tf.constant(inputs), tf.constant(flags[:-1])))
        label, solution = int(targets[0]), "in order, turned back"
        return self.panels(label, inputs, undone, solution, lambda slot: self._words(flags[:, slot]))

    def _words(self, flags: np.ndarray) -> str:
        """Return what was done to a cube, for a title."""
        *turned, shown = flags
        names = [name.replace("_", " ") for name, flag in zip(self.turns, turned, strict=True) if flag]
        words = [" and ".join(names) or "not turned"] if self.turns else []
        return "".join(f", {word}" for word in (*words, *([] if shown else ["blank"])))
