"""Relative patch location: where does a patch lie, seen from the one in the middle of the scan?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.classifying import ClassifyingAlgorithm
from self_supervised_3d_tasks.algorithms.patch_tasks import PatchAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import Distance, PatchesPerSide, PositiveFew
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.ops import patches, seeds


@dataclass(kw_only=True, eq=False)
class RelativePatchLocation(ClassifyingAlgorithm, PatchAlgorithm):
    """Relative patch location, from 2D (Doersch et al. 2015) carried to 3D.

    Taleb et al. 2020, "3D Self-Supervised Methods for Medical Imaging", section 3.2. The scan is cut into a
    grid of n patches per side. From the code of the patch in the centre and that of a query patch, a
    classifier tells the query's cell: class c is cell c in raster order, the centre left out. Chance is
    1 / classes: 1/26 for three patches per side in 3D, 1/8 in 2D. With several queries per image each patch is
    still encoded once, and the loss is their average.

    Args:
        input_shape: ``(*spatial, channels)``.
        patches_per_side: n, odd and at least 3.
        patch_jitter: Largest random shift of a patch in its cell, in voxels, drawn for each patch and axis. None: an
            eighth of the cell, at most 3.
        patch_gap: Voxels that neighbouring patches are apart at least; at most 2 · jitter are added. Edges that touch
            would tell which patches are neighbours. None: a quarter of the cell, at most 3.
        patch_normalization: Standardise each channel of each patch, since a slow change of intensity across
            the scan gives places away.
        min_foreground: A scan counts where every patch has at least this share of tissue: the others tell by the
            outline of the body where a patch lies. Tissue is above 5 % of the range, or a hole of two voxels in it. 0:
            every scan counts.
        queries_per_image: Distinct cells that are asked about in each scan; with one, the predecessor's, the codes of
            two patches are all that the head has to tell apart.
        top_architecture: The head on a pair's flattened maps: an MLP, or one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        dropout_rate: Dropout rate of the MLP.

    Raises:
        UserError: A grid without a centre, no voxels in a patch, or more queries than cells.
    """

    patches_per_side: Annotated[PatchesPerSide, Field(ge=3)] = 3
    patch_jitter: Distance | None = None
    patch_gap: Distance | None = None
    patch_normalization: bool = False
    queries_per_image: PositiveFew = 4

    def __post_init__(self) -> None:
        """Lay out the patches, and check that one is in the centre and enough are around it."""
        super().__post_init__()
        if self.patches_per_side % 2 == 0:
            raise UserError(
                f"patches_per_side: an odd number from 3 on, received {self.patches_per_side}: the patch in the centre "
                "is what the others are compared with; use 3 or 5"
            )
        self.grid = patches.PatchCells(self.spatial_shape, self.patches_per_side, self.patch_gap, self.patch_jitter)
        # By class: the centre is asked about in no example.
        center = (self.patches_per_side // 2,) * self.rank
        self.query_cells = [cell for cell in self.grid.cells() if cell != center]
        self.center = self.grid.cells().index(center)
        if self.queries_per_image > len(self.query_cells):
            raise UserError(
                f"queries_per_image: at most {len(self.query_cells)}, the cells around the centre of "
                f"{self.patches_per_side} patches per side, received {self.queries_per_image}; reduce it"
            )
        self.num_classes = len(self.query_cells)

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the centre and the queries ``(1 + queries, *patch, channels)`` and classes ``(queries,)`` int32.

        The classes are -1 where the scan does not count.
        """
        image = tf.ensure_shape(image, self.input_shape)
        origins = self.grid.draw_origins(seeds.fold(seed, 0))
        order = tf.random.stateless_uniform((len(self.query_cells),), seeds.fold(seed, 1))
        labels = tf.math.top_k(order, self.queries_per_image).indices
        every = patches.extract(image, origins, self.grid.patch_shape)
        around = tf.concat([every[: self.center], every[self.center + 1 :]], axis=0)
        inputs = tf.concat([every[self.center : self.center + 1], tf.gather(around, labels)], axis=0)
        labels = self.only_if_filled(labels, every)
        return patches.standardize(inputs) if self.patch_normalization else inputs, labels

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return patches ``(batch, 1 + queries, *patch, channels)`` -> logits ``(batch, queries, classes)``."""
        ops, num_queries = keras.ops, self.queries_per_image
        inputs, codes = self.inputs_and_codes(encoder, 1 + num_queries)
        codes = heads.told_apart(codes, self.normalization)
        pairs = ops.concatenate([ops.repeat(codes[:, :1], num_queries, axis=1), codes[:, 1:]], axis=-1)
        pairs = ops.reshape(pairs, (-1, pairs.shape[-1]))  # (batch * queries, 2 * code)
        logits = self.logits(pairs, seed=seed)
        return keras.Model(inputs, ops.reshape(logits, (-1, num_queries, self.num_classes)), name=self.name)

    def metrics(self) -> list[Any]:
        """Return the share of classes that are recognised, and the share of scans that count."""
        return [*super().metrics(), self.complete]

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the centre and up to eight queries under their cells."""
        center, *queries = np.asarray(inputs)
        panels = [Panel(f"centre {self.grid.cells()[self.center]}", center)]
        for label, query in zip(np.asarray(targets).tolist()[:8], queries, strict=False):
            title = f"query {self.query_cells[label]}, class {label}" if label >= 0 else "query that does not count"
            panels.append(Panel(title, query))
        return panels
