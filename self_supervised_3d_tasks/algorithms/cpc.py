"""Contrastive predictive coding: from the patches above, predict the codes of the patches below."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm
from self_supervised_3d_tasks.algorithms.patch_tasks import PatchAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import Distance, Divisor, Length, PatchesPerSide, Units
from self_supervised_3d_tasks.losses import contrastive
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.ops import geometry, global_batch, patches, seeds
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.scores import logged

Cell = tuple[int, ...]

# Share of each patch's edge that its random crop keeps (the predecessor's numbers), by rank.
_PATCH_CROP = {2: 11 / 12, 3: 7 / 8}


@dataclass(kw_only=True, eq=False)
class CPC(PatchAlgorithm, ComparingAlgorithm):
    """Contrastive predictive coding, from 2D (van den Oord et al. 2018, Hénaff et al. 2019) carried to 3D.

    Taleb et al. 2020, "3D Self-Supervised Methods for Medical Imaging", section 3.1. The scan is cut into a
    grid of n patches per side. Axis 0 counts rows; a column is what the other axes name. Row e = n // 2 - 1
    holds the anchors. The context of an anchor is the inverted pyramid above it, row r with half-width e - r,
    and the anchor itself; where the pyramid leaves the grid it is reflected, in 2D as in 3D. A GRU reads the
    context from the top row to the anchor, and one linear layer per row below predicts the code of the patch
    there, in the same column. Every patch is encoded once; contexts and targets are gathered from the codes.

    With predictions p and codes z, the score of a candidate is p · z / (temperature · sqrt(code_size)). The
    root keeps the first scores near 0 for any code size, so that training starts at chance, yet large enough
    for the gradient (a mean over 1,024 products is not). InfoNCE picks the true patch among those of all
    columns of all scans of the batch at the same row: log(batch · columns) at chance. "binary" is the
    predecessor's loss: the mean product over rows and code, divided by ``temperature``, is the logit that
    tells the true column from one random other; log 2 at chance.

    Args:
        input_shape: ``(*spatial, channels)``.
        patches_per_side: n, at least 4: with fewer there is no row above the anchors.
        code_size: Width of a patch's code.
        context_units: Width of the GRU.
        crop_size: Edge in voxels of a random crop of the scan, which the grid is laid on; None: 95 % of each axis.
        patch_overlap: Voxels that neighbours share; None: 0 in 3D, in 2D nearly half a patch, so that the patches of
            every second row are a quarter of the cell apart, at most 3 voxels.
        patch_augment: Crop each patch at random to 7/8 (2D: 11/12) of its edge, and in 3D flip it along axis 0 with
            probability 1/2. Otherwise continuing edges give neighbours away. What crops take away is made up for by
            mirroring the patch at its borders: zeros would tell where it lies.
        skip_row: Leave out the row below the anchors, which may share voxels with them; None: where patches
            overlap.
        cpc_mode: "info_nce" or "binary".
        temperature: Divides the scores.
        min_foreground: A scan counts where every patch has at least this share of tissue: in the others the outline of
            the body tells which patches lie in one column. Tissue is above 5 % of the range, or a hole of two voxels in
            it. 0: every scan counts.

    Raises:
        UserError: A grid that leaves no voxels, or predicted patches that overlap their context.
    """

    patches_per_side: Annotated[PatchesPerSide, Field(ge=4)] = 4
    code_size: Units = 1024
    context_units: Units = 256
    crop_size: Length | None = None
    patch_overlap: Distance | None = None
    patch_augment: bool = True
    skip_row: bool | None = None
    cpc_mode: Literal["info_nce", "binary"] = "info_nce"
    temperature: Divisor = 1.0

    def __post_init__(self) -> None:
        """Lay out the grid, its rows and its columns, and check that nothing predicted can be copied."""
        n = self.patches_per_side
        self.crop_shape = self._crop_shape()
        self.grid = self._grid(self.crop_shape)
        self.anchor_row = n // 2 - 1
        skips = any(self.grid.overlap) if self.skip_row is None else self.skip_row
        self.target_rows = tuple(range(self.anchor_row + 1 + skips, n))
        share = _PATCH_CROP[self.rank] if self.patch_augment else 1
        self.kept_shape = tuple(max(1, int(size * share)) for size in self.grid.patch_shape)
        if any(size > 3 * kept for size, kept in zip(self.encoder_shape, self.kept_shape, strict=False)):
            raise UserError(
                f"crop_size: patches of {list(self.kept_shape)} voxels of a crop of {list(self.crop_shape)} are less "
                f"than a third of those of the scan, {list(self.encoder_shape[:-1])}, to which they are enlarged by "
                "mirroring; use a larger crop, or a smaller data_dim"
            )
        step, height = (1 + skips) * self.grid.stride[0], self.grid.patch_shape[0]
        if step < height:
            raise UserError(
                f"patch_overlap, skip_row: patches of {height} voxels share voxels with those predicted, which begin "
                f"{step} voxels below and could be copied; set skip_row to true or reduce patch_overlap"
            )
        # A skipped row is in no context and no target: it is never cut out, let alone encoded.
        self.cells = self.grid.cells((*range(self.anchor_row + 1), *self.target_rows))
        self.columns = [cell[1:] for cell in self.grid.cells([0])]
        # A true and a false pair per column: what batch_size counted in the predecessor.
        self.sampling = Sampling(examples_per_scan=2 * len(self.columns))

    @property
    def encoder_shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of a patch as the encoder sees it: as large as a patch of the whole scan."""
        whole = self._grid(self.spatial_shape).patch_shape
        return (*map(max, whole, self.kept_shape), self.input_shape[-1])

    def _crop_shape(self) -> tuple[int, ...]:
        if self.crop_size is None:
            return tuple(max(1, int(0.95 * size)) for size in self.spatial_shape)
        if self.crop_size > min(self.spatial_shape):
            raise UserError(
                f"crop_size: at most the shortest edge of data_dim {list(self.spatial_shape)}, received "
                f"{self.crop_size}; reduce it, or leave it out for 95 % of each axis"
            )
        return (self.crop_size,) * self.rank

    def _grid(self, shape: tuple[int, ...]) -> patches.PatchGrid:
        n, overlap = self.patches_per_side, (self.patch_overlap,) * self.rank
        if self.patch_overlap is None:
            # Where the overlap is o and the stride s, the row after the next begins s - o voxels below a patch.
            gaps = [min(3, size // (4 * n)) if self.rank == 2 else size for size in shape]
            overlap = tuple(max(0, size - n * gap) // (n + 1) for size, gap in zip(shape, gaps, strict=True))
        grid = patches.PatchGrid(shape, n, overlap)
        if min(grid.stride) < 1:
            raise UserError(
                f"patches_per_side, patch_overlap, data_dim: {n} patches per side that overlap by {max(overlap)} do "
                f"not fit into {list(shape)} voxels; use fewer patches, less overlap or a larger "
                "data_dim"
            )
        return grid

    def context(self, column: Cell) -> list[Cell]:
        """Return the cells of a column's context, top row first, in raster order, the anchor last."""
        cells = []
        for row in range(self.anchor_row + 1):
            half_width = self.anchor_row - row
            sides = [range(index - half_width, index + half_width + 1) for index in column]
            cells += [(row, *map(self._reflect, place)) for place in itertools.product(*sides)]
        return cells

    def targets(self, column: Cell) -> list[Cell]:
        """Return the cells that a column's context predicts, top row first."""
        return [(row, *column) for row in self.target_rows]

    def _reflect(self, index: int) -> int:
        last = self.patches_per_side - 1
        return last - abs(last - abs(index))

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the patches and, for the binary loss, the draw of a false column.

        Returns:
            Patches ``(cells, *patch, channels)``, and ``(columns,)`` numbers in [0, 1): a quantile among the
            other columns of the batch, resolved in the loss, where the number of scans is known; -1 where the scan
            does not count.
        """
        image = tf.ensure_shape(image, self.input_shape)
        # The grid lies on the crop: zeros around it would tell the cells at the border, and so the columns.
        crop = patches.random_crop(image, self.crop_shape, seeds.fold(seed, 0))
        origins = tf.constant([self.grid.origin(cell) for cell in self.cells])
        inputs = self._draw_patches(crop, origins, seeds.fold(seed, 1))
        columns = self.only_if_filled(tf.random.stateless_uniform((len(self.columns),), seeds.fold(seed, 2)), inputs)
        return patches.mirror_to(inputs, (len(self.cells), *self.encoder_shape)), columns

    def _draw_patches(self, image: tf.Tensor, origins: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return a crop of the patch in each cell, in 3D flipped at random: ``(cells, *kept_shape, channels)``."""
        number = len(self.cells)
        limits = [size - edge for size, edge in zip(self.grid.patch_shape, self.kept_shape, strict=True)]
        offsets = patches.draw_offsets(seeds.fold(seed, 0), number, limits)
        drawn = patches.extract(image, origins + offsets, self.kept_shape)
        if self.rank == 3 and self.patch_augment:
            flags = geometry.draw_flips(seeds.fold(seed, 1), number)
            flags = tf.reshape(flags, (number, *[1] * (self.rank + 1)))
            drawn = tf.where(flags, tf.reverse(drawn, [1]), drawn)
        return drawn

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return patches ``(batch, cells, *patch, channels)`` -> scores.

        The scores ``(batch, columns, rows, batch, columns)``, float32, compare each prediction with the codes
        of the same row in all columns of all scans of the batch, those of other devices included.
        """
        num_columns, num_rows = len(self.columns), len(self.target_rows)
        inputs, codes = self.inputs_and_codes(encoder, len(self.cells))
        codes = layers.dense(self.code_size, seed=seed, name="code")(codes)

        contexts = [self.cells.index(cell) for column in self.columns for cell in self.context(column)]
        terms = keras.ops.take(codes, contexts, axis=1)
        terms = keras.ops.reshape(terms, (-1, len(contexts) // num_columns, self.code_size))
        # (batch * columns, terms, code) -> (batch * columns, context_units)
        summary = layers.gru(self.context_units, seed=seed, name="context")(terms)
        rows = [layers.logits_dense(self.code_size, seed=seed, name=f"prediction_{row}") for row in self.target_rows]
        predictions = keras.ops.stack([row(summary) for row in rows], axis=1)
        predictions = keras.ops.reshape(predictions, (-1, num_columns, num_rows, self.code_size))

        targets = [self.cells.index(cell) for column in self.columns for cell in self.targets(column)]
        targets = keras.ops.take(codes, targets, axis=1)
        targets = keras.ops.reshape(targets, (-1, num_columns, num_rows, self.code_size))
        targets = global_batch.gather(keras.ops.cast(targets, "float32"))
        scores = keras.ops.einsum("acrd,bkrd->acrbk", keras.ops.cast(predictions, "float32"), targets)
        return keras.Model(inputs, scores * self._scale, name=self.name)

    @property
    def _scale(self) -> float:
        """The factor on the products: 1 / sqrt(code_size) for InfoNCE, the predecessor's mean for "binary"."""
        return self.code_size ** (-0.5 if self.cpc_mode == "info_nce" else -1.0) / self.temperature

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return InfoNCE or the binary loss, float32, averaged over a scan's columns (and rows): ``(batch,)``.

        Args:
            y_true: ``(batch, columns)`` quantiles of the false columns, which InfoNCE does not look at; -1 in a scan
                that does not count.
            y_pred: Scores ``(batch, columns, rows, batch, columns)``.
        """
        logits, own = self._candidates(y_pred)
        loss = contrastive.info_nce(logits, own) if self.cpc_mode == "info_nce" else self._binary(y_true, logits, own)
        return loss * self.complete(y_true, y_pred)

    def _binary(self, y_true: Any, logits: Any, own: Any) -> Any:
        """Return the predecessor's loss, ``(batch,)``, of `_candidates`."""
        ops, num_columns, num_rows = keras.ops, len(self.columns), len(self.target_rows)
        num_candidates = ops.shape(logits)[-1]
        logits = ops.mean(ops.reshape(logits, (-1, num_columns, num_rows, num_candidates)), axis=2)
        own = own[:, ::num_rows]
        false = contrastive.other_index(ops.maximum(y_true, 0.0), own, num_candidates)
        positive = ops.take_along_axis(logits, own[..., None], axis=-1)
        negative = ops.take_along_axis(logits, false[..., None], axis=-1)
        return ops.mean(ops.softplus(-positive) + ops.softplus(negative), axis=(1, 2)) / 2

    def metrics(self) -> list[Any]:
        """Return the accuracy, whose chance level `chance` tells, and the share of scans that count."""
        return [logged.weighted_mean("accuracy", self._hits), self.complete]

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return the accuracy of a guess, 1 / (batch · columns): every column of the batch has a candidate."""
        return {"accuracy": 1 / (scans_per_step * len(self.columns))}

    def _hits(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return per scan the share of predictions whose true patch has the highest score, and whether it counts."""
        logits, own = self._candidates(y_pred)
        hits = keras.ops.cast(keras.ops.argmax(logits, axis=-1), "int32") == own
        return keras.ops.mean(keras.ops.cast(hits, "float32"), axis=1), self.complete(y_true, y_pred)

    def _candidates(self, scores: Any) -> tuple[Any, Any]:
        """Return logits ``(batch, queries, candidates)`` and the true candidates ``(batch, queries)``.

        A query is a (column, row), row fastest; a candidate a (scan, column).
        """
        ops, num_columns, num_rows = keras.ops, len(self.columns), len(self.target_rows)
        batch, others = ops.shape(scores)[0], ops.shape(scores)[3]
        logits = ops.cast(scores, "float32")
        logits = ops.reshape(logits, (batch, num_columns * num_rows, others * num_columns))
        own = ops.reshape(ops.arange(batch * num_columns, dtype="int32"), (batch, num_columns))
        own = own + global_batch.first_row(scores) * num_columns
        return logits, ops.repeat(own, num_rows, axis=1)

    def describe(self, inputs: np.ndarray, targets: np.ndarray) -> list[Panel]:
        """Show the context, the anchor and the predicted patches of the column in the middle."""
        column = (self.patches_per_side // 2,) * (self.rank - 1)
        *context, anchor = self.context(column)
        roles = {cell: "context" for cell in context} | {anchor: "anchor"}
        roles |= {cell: "predicted" for cell in self.targets(column)}
        return [Panel(f"{role} {cell}", np.asarray(inputs[self.cells.index(cell)])) for cell, role in roles.items()]
