"""Jigsaw puzzles: in which order are the patches of the scan presented?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.classifying import ClassifyingAlgorithm
from self_supervised_3d_tasks.algorithms.patch_tasks import PuzzleAlgorithm
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.ops import patches, permutations

# How many permutations are told apart if nothing else is said, by rank: the papers' numbers.
_NUM_PERMUTATIONS = {2: 100, 3: 1000}


@dataclass(kw_only=True, eq=False)
class Jigsaw(PuzzleAlgorithm, ClassifyingAlgorithm):
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
        permutation_seed: Seed of the choice of the permutations.
        top_architecture: The head on the flattened maps of all patches: an MLP, or one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        dropout_rate: Dropout rate of the MLP.

    Raises:
        UserError: No voxels in a patch, or more permutations than there are.
    """

    patches_per_side: Annotated[int, Field(ge=2)] = 3
    patch_jitter: Annotated[int, Field(ge=0)] = 3
    patch_gap: Annotated[int, Field(ge=0)] = 0
    patch_normalization: bool = False
    min_foreground: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        """Lay out the patches, and check that there are orders to tell apart."""
        self.grid = patches.PatchCells(self.spatial_shape, self.patches_per_side, self.patch_gap, self.patch_jitter)
        self.num_permutations = permutations.checked_size(
            self.num_patches, self.num_permutations, _NUM_PERMUTATIONS[self.rank], items="patches"
        )
        self.num_classes = self.num_permutations

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the patches in permuted order ``(patches, *patch, channels)`` and the class, an int32 scalar."""
        image = tf.ensure_shape(image, self.input_shape)
        label, origins = self.draw_order(seed)
        presented = patches.extract(image, origins, self.grid.patch_shape)
        inputs = patches.standardize(presented) if self.patch_normalization else presented
        if self.min_foreground > 0:
            shown = patches.foreground_share(presented) >= self.min_foreground
            inputs = tf.where(tf.reshape(shown, (-1, *[1] * (self.rank + 1))), inputs, 0.0)
        return inputs, label

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return patches ``(batch, patches, *patch, channels)`` -> logits ``(batch, classes)``."""
        inputs, codes = self.inputs_and_codes(encoder, self.num_patches)
        codes = keras.ops.reshape(codes, (-1, self.num_patches * codes.shape[-1]))
        return keras.Model(inputs, self.logits(codes, seed=seed), name=self.name)

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the puzzle, its solution, and the first seven patches with the cells that they come from."""
        inputs = np.asarray(inputs)
        return self.panels(int(targets), inputs, inputs, "in order", lambda place: "")
