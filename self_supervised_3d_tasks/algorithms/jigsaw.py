"""Jigsaw puzzles: in which order are the patches of the scan presented?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.classifying import ClassifyingAlgorithm
from self_supervised_3d_tasks.algorithms.patch_tasks import PuzzleAlgorithm
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import Distance, PatchesPerSide
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.ops import patches, permutations

# How many permutations are told apart if nothing else is said, by rank: the paper's number and the predecessor's.
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
        patch_jitter: Largest random shift of a patch in its cell, in voxels, drawn for each patch and axis. None: an
            eighth of the cell, at most 3.
        patch_gap: Voxels that neighbouring patches are apart at least; at most 2 · jitter are added. Edges that touch
            would tell which patches are neighbours. None: a quarter of the cell, at most 3.
        patch_normalization: Standardise each channel of each patch, since a slow change of intensity across
            the scan gives places away.
        min_foreground: A scan counts where every patch has at least this share of tissue: the others tell by the
            outline of the body where a patch lies. Tissue is above 5 % of the range, or a hole of two voxels in it. 0:
            every scan counts.
        num_permutations: P; None: 1,000 in 3D as in the paper, which names no number for 2D; there 100, as in the
            predecessor. All there are where there are fewer.
        permutation_seed: Seed of the choice of the permutations.
        top_architecture: The head on the flattened maps of all patches: an MLP, or one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        dropout_rate: Dropout rate of the MLP.

    Raises:
        UserError: No voxels in a patch, or more permutations than there are.
    """

    patches_per_side: Annotated[PatchesPerSide, Field(ge=2)] = 3
    patch_jitter: Distance | None = None
    patch_gap: Distance | None = None
    patch_normalization: bool = False

    def __post_init__(self) -> None:
        """Lay out the patches, and check that there are orders to tell apart."""
        super().__post_init__()
        self.grid = patches.PatchCells(self.spatial_shape, self.patches_per_side, self.patch_gap, self.patch_jitter)
        self.num_permutations = permutations.checked_size(
            self.num_patches, self.num_permutations, _NUM_PERMUTATIONS[self.rank], items="patches"
        )
        self.num_classes = self.num_permutations

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the patches in permuted order ``(patches, *patch, channels)`` and the class, an int32 scalar.

        The class is -1 where the scan does not count.
        """
        image = tf.ensure_shape(image, self.input_shape)
        label, origins = self.draw_order(seed)
        presented = patches.extract(image, origins, self.grid.patch_shape)
        inputs = patches.standardize(presented) if self.patch_normalization else presented
        return inputs, self.only_if_filled(label, presented)

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return patches ``(batch, patches, *patch, channels)`` -> logits ``(batch, classes)``."""
        inputs, codes = self.inputs_and_codes(encoder, self.num_patches)
        codes = keras.layers.Flatten(name="joined")(heads.told_apart(codes, self.normalization))
        return keras.Model(inputs, self.logits(codes, seed=seed), name=self.name)

    def metrics(self) -> list[Any]:
        """Return the share of classes that are recognised, and the share of scans that count."""
        return [*super().metrics(), self.complete]

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the puzzle, its solution, and the first seven patches with the cells that they come from."""
        inputs = np.asarray(inputs)
        if not self.counts(targets):
            return [Panel("does not count: presented", self.grid.assemble(inputs))]
        return self.panels(int(targets), inputs, inputs, "in order", lambda place: "")
