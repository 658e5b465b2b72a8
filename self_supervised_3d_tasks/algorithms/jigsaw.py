"""Jigsaw puzzles: in which order are the patches of the scan presented?"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.kinds import ClassifyingAlgorithm
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.ops import patches, permutations, seeds

# How many permutations are told apart if nothing else is said, by rank: the papers' numbers.
_NUM_PERMUTATIONS = {2: 100, 3: 1000}


class Jigsaw(ClassifyingAlgorithm):
    """Jigsaw puzzles, from 2D (Noroozi and Favaro 2016) carried to 3D.

    Taleb et al. 2020, "3D Self-Supervised Methods for Medical Imaging", section 3.3. The scan is cut into a
    grid of n patches per side, which are presented in one of P permuted orders: patch i of the puzzle is patch
    ``permutations[class][i]`` of the scan, in raster order. The patches' codes, concatenated in the order
    presented, tell the class. Chance is 1 / P. The permutations are chosen to differ in many places (see
    `ops.permutations`) and stay the same throughout.

    Args:
        input_shape: ``(*spatial, channels)``.
        patches_per_side: n, at least 2.
        patch_jitter: Largest random shift of a patch in its cell, in voxels, drawn for each patch and axis.
        patch_gap: Voxels that neighbouring patches are apart at least; at most 2 · jitter are added.
        patch_normalization: Standardise each channel of each patch, since a slow change of intensity across
            the scan gives places away.
        min_foreground: A patch with a smaller share of voxels above 5 % of the range is replaced by zeros, so
            that the noise of the background cannot tell its place. 0 leaves every patch as it is.
        num_permutations: P; None: 1,000 in 3D and 100 in 2D, or all there are where there are fewer.
        permutation_seed: Of the choice of the permutations.
        top_architecture: The head on the flattened maps of all patches: an MLP, or one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        dropout_rate: Of the MLP.

    Raises:
        UserError: No voxels in a patch, or more permutations than there are.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        patches_per_side: Annotated[int, Field(ge=2)] = 3,
        patch_jitter: Annotated[int, Field(ge=0)] = 3,
        patch_gap: Annotated[int, Field(ge=0)] = 0,
        patch_normalization: bool = False,
        min_foreground: Annotated[float, Field(ge=0, le=1)] = 0.0,
        num_permutations: Annotated[int, Field(ge=2)] | None = None,
        permutation_seed: Annotated[int, Field(ge=0)] = 0,
        top_architecture: Literal["big_fully", "softmax"] = "big_fully",
        head_units: tuple[Annotated[int, Field(ge=1)], ...] = (2048, 1024),
        dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__(input_shape)
        self.grid = patches.PatchCells(self.spatial_shape, patches_per_side, patch_gap, patch_jitter)
        self.num_patches = patches_per_side**self.rank
        self.num_permutations = permutations.checked_size(
            self.num_patches, num_permutations, _NUM_PERMUTATIONS[self.rank], items="patches"
        )
        self.permutation_seed = permutation_seed
        self.patch_normalization = patch_normalization
        self.min_foreground = min_foreground
        self.top_architecture = top_architecture
        self.head_units = head_units
        self.dropout_rate = dropout_rate
        self.num_classes = self.num_permutations

    @functools.cached_property
    def permutations(self) -> np.ndarray:
        """``(classes, patches)``: by class, which patch of the scan is presented at each place."""
        return permutations.permutation_set(self.num_patches, self.num_permutations, self.permutation_seed)

    @property
    def encoder_shape(self) -> tuple[int, ...]:
        """``(*patch, channels)``."""
        return (*self.grid.patch_shape, self.input_shape[-1])

    def settings(self) -> dict[str, Any]:
        """Return the permutations: what a class means."""
        return {"permutations": self.permutations.tolist()}

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the patches in permuted order ``(patches, *patch, channels)`` and the class, an int32 scalar."""
        image = tf.ensure_shape(image, self.input_shape)
        label = tf.random.stateless_uniform((), seeds.fold(seed, 0), 0, self.num_permutations, tf.int32)
        order = tf.gather(tf.constant(self.permutations), label)
        origins = tf.gather(self.grid.draw_origins(seeds.fold(seed, 1)), order)
        presented = patches.extract(image, origins, self.grid.patch_shape)
        inputs = patches.standardize(presented) if self.patch_normalization else presented
        if self.min_foreground > 0:
            shown = patches.foreground_share(presented) >= self.min_foreground
            inputs = tf.where(tf.reshape(shown, (-1, *[1] * (self.rank + 1))), inputs, 0.0)
        return inputs, label

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return patches ``(batch, patches, *patch, channels)`` -> logits ``(batch, classes)``."""
        inputs = keras.Input((self.num_patches, *self.encoder_shape), name="patches")
        codes = encoder(keras.ops.reshape(inputs, (-1, *self.encoder_shape)))
        codes = keras.layers.Flatten(name="flatten")(codes)
        codes = keras.ops.reshape(codes, (-1, self.num_patches * codes.shape[-1]))
        logits = self.logits(codes, seed=seed)
        return keras.Model(inputs, logits, name=self.name)

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the puzzle, its solution, and the first seven patches with the cells that they come from.

        In 3D they are the first of the layer that a preview shows, the middle of the last axis.
        """
        inputs, label = np.asarray(inputs), int(targets)
        order, cells = self.permutations[label], self.grid.cells()
        middle = self.grid.sides[-1] // 2
        places = [place for place, cell in enumerate(cells) if self.rank == 2 or cell[-1] == middle]
        return [
            Panel(f"class {label}: presented", self.grid.assemble(inputs)),
            Panel("in order", self.grid.assemble(inputs[np.argsort(order)])),
            *(Panel(f"from {cells[order[place]]}", inputs[place]) for place in places[:7]),
        ]
