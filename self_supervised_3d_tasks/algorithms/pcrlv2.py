"""PCRLv2: restore corrupted views of a scan, and let the codes of its views predict each other, at several scales."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm, ScheduledAlgorithm
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import Degrees, Few, Length, PositiveShare, Share, ShareBelowOne, Strength
from self_supervised_3d_tasks.models import multi_scale
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.ops import corruption, seeds, views
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.shapes import as_tuple

Size = Length | Annotated[tuple[Length, ...], Field(max_length=3)]


@dataclass(kw_only=True, eq=False)
class PCRLv2(RestoringAlgorithm, ComparingAlgorithm, ScheduledAlgorithm):
    """PCRLv2, preservational contrastive representation learning at several scales, in 3D and 2D.

    Zhou et al. 2023, "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical
    Image Analysis". Two global views of a region of the scan overlap; small local views are cut out of the box around
    both. A view is cut out, resized, flipped and deformed, and then corrupted: blurred, made noisy, its contrast bent
    and, if it is global, its cells swapped. A U-Net without skip connections gives a map per scale. At each, a head
    restores the global view as it was before the corruption, and the codes of the views predict each other: L_C(a, b)
    = -1/2 [cos(f(v_a), sg v_b) + cos(f(v_b), sg v_a)] of `siamese.branches`, where sg lets no gradient pass. Each step
    draws the scales that count.

    The loss is L_R + L_C(global 1, global 2) + the mean of L_C(local, global) over all such pairs. L_R adds up, over
    both views, the mean squared error at the finest scale and β times that at the scale drawn; β = (1 + cos(π e / E))/2
    falls from 1 to 0 in the E epochs. Paper and authors' code differ; both are there by keys. As β falls, so does the
    loss: the metric restoration_mse tells how well is restored, and what the codes do is seen in `codes`.

    The global and the local views are separate passes with statistics of their own; those that a batch normalization
    keeps for later mix both. They are recomputed from global views at the end; until then the columns of validation are
    those of the mixture (not with "normalization": "group"). The weights of the last epoch are kept.

    Args:
        input_shape: ``(*spatial, channels)`` of the region of a scan that the views are drawn from, in [0, 1].
        global_dim: Size that a global view is resized to; None: half of the region.
        global_sizes: Sizes that a global view is cut out with; None: 5/8, 3/4 and 7/8 of the region.
        min_iou: Least intersection over union of the global views.
        local_dim: Size that a local view is resized to; None: half of ``global_dim``.
        local_sizes: Sizes that a local view is cut out with; None: 1/8, 1/4 and 3/8 of the region, 2 voxels at least.
        num_local_views: How many; 0 leaves their terms out.
        local_region: What they are cut out of: "bounding_box", the box around the global views (the paper's sub-crop),
            or "image", the whole region (its multi-crop). None: the box in 3D, the image in 2D, as in the paper.
        flip: Reverse every second view from left to right: the first axis of a volume, the second of an image.
        affine_scale: a: each axis is magnified by U(1 ± a).
        affine_degrees: Rotation by U(± that) in each plane. What comes from outside has the view's minimum.
        blur_sigma: A Gaussian's largest width, in voxels; it is drawn from U(0, that) for each view.
        noise_sigma: Largest standard deviation of noise, in units of the range [0, 1]; drawn in the same way.
        gamma: Intensities become x^g with log g from U(± that), clipped before.
        swap_share: Share of a global view's cells that trade places.
        swap_cell: Size of a cell in voxels; None: an eighth of ``global_dim``, 2 at least.
        scan_normalization: "min_max": what the encoder sees stays in [0, 1], as in finetuning. "z_score", the code's:
            mean 0 and standard deviation 1 in each channel. The target stays in [0, 1].
        local_loss: Whether the terms of the local views are averaged, as in the code, or added up, as in the paper.
        restoration: What L_R is made of. "both_views": as above; "paper": both views at the scale drawn alone;
            "code": the first view alone, at both scales.
        restoration_head: Layers of a head, as in the paper or as in its code; `restoration.restoration_head` has both.
        scale_draw: "pair": the restoration and every pair of views have a scale of their own, as in the code; "step":
            one for all, as in the paper.
        normalization: Normalization of every convolution, in the encoder and on the way up; default: group.
        dropout: Dropout rate inside the blocks, in the encoder and on the way up; default: 0.

    Raises:
        UserError: Views that do not fit, cannot overlap enough, or are too small for cells.
    """

    global_dim: Size | None = None
    global_sizes: tuple[Size, ...] | None = None
    min_iou: PositiveShare = 0.3
    local_dim: Size | None = None
    local_sizes: tuple[Size, ...] | None = None
    num_local_views: Few = 6
    local_region: Literal["bounding_box", "image"] | None = None
    flip: bool = True
    affine_scale: ShareBelowOne = 0.1
    affine_degrees: Degrees = 10.0
    blur_sigma: Strength = 2.0
    noise_sigma: Strength = 0.25
    gamma: Strength = 0.3
    swap_share: Share = 0.2
    swap_cell: Size | None = None
    scan_normalization: Literal["min_max", "z_score"] = "min_max"
    local_loss: Literal["mean", "sum"] = "mean"
    restoration: Literal["both_views", "paper", "code"] = "both_views"
    restoration_head: Literal["paper", "code"] = "paper"
    scale_draw: Literal["pair", "step"] = "pair"
    normalization: Normalization | None = None
    dropout: ShareBelowOne | None = None

    def __post_init__(self) -> None:
        """Complete the sizes and check that the views fit."""
        self.global_dim = self._size("global_dim", self.global_dim, [side // 2 for side in self.spatial_shape])
        self.local_dim = self._size("local_dim", self.local_dim, [side // 2 for side in self.global_dim])
        self.local_region = self.local_region or ("bounding_box" if self.rank == 3 else "image")
        self.deformation = corruption.Deformation(self.flip, self.affine_scale, self.affine_degrees)
        cell = self._size("swap_cell", self.swap_cell, [min(side, max(2, side // 8)) for side in self.global_dim])
        self.corruption = corruption.Corruption(
            self.blur_sigma, self.noise_sigma, self.gamma, self.swap_share, cell, self.scan_normalization == "z_score"
        )
        self.global_boxes = views.OverlappingBoxes(
            self.spatial_shape, self._sizes("global_sizes", self.global_sizes, (5 / 8, 3 / 4, 7 / 8)), self.min_iou
        )
        sizes = self._sizes("local_sizes", self.local_sizes, (1 / 8, 1 / 4, 3 / 8), least=2)
        self.local_boxes = views.InnerBoxes(sizes, self.num_local_views)
        self._check_views()
        # The codes of two, normalized over the batch, are 1 and -1 whatever they were.
        self.sampling = Sampling(min_batch=3, make_batch=self._draw_scales)

    def _size(self, key: str, value: Size | None, default: Sequence[int]) -> tuple[int, ...]:
        return as_tuple([max(1, side) for side in default] if value is None else value, self.rank, key)

    def _sizes(self, key: str, values: Sequence[Size] | None, shares: Sequence[float], least: int = 1) -> tuple:
        if values is None:
            values = [[min(side, max(least, round(share * side))) for side in self.spatial_shape] for share in shares]
        return tuple(self._size(key, value, ()) for value in values)

    def _check_views(self) -> None:
        if self.num_local_views:
            sizes = self.global_boxes.sizes
            around = [tuple(map(max, sizes[i], sizes[j])) for i, j in self.global_boxes.pairs]
            for outer in around if self.local_region == "bounding_box" else [self.spatial_shape]:
                self.local_boxes.check(outer)
        cell = self.corruption.swap_cell
        cells = [side // edge for side, edge in zip(self.global_dim, cell, strict=True)]
        if self.swap_share > 0 and (min(cells) < 1 or max(cells) < 2):
            raise UserError(
                f"swap_cell, global_dim: a view of {list(self.global_dim)} voxels does not have two cells of "
                f"{list(cell)}; use smaller cells, or a swap_share of 0"
            )

    @property
    def encoder_shape(self) -> tuple[int | None, ...]:
        """``(*spatial, channels)`` with unknown sizes: global and local views differ."""
        return (*[None] * self.rank, self.input_shape[-1])

    @property
    def encoder_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The ``(*spatial, channels)`` of a global view, and of a local one if there are any."""
        sizes = [self.global_dim, self.local_dim] if self.num_local_views else [self.global_dim]
        return tuple((*size, self.input_shape[-1]) for size in sizes)

    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Return the views, and zeros in place of what `_draw_scales` draws.

        Returns:
            "global_views" ``(2, *global_dim, channels)`` and "local_views" ``(num_local_views, *local_dim, channels)``,
            which the encoder sees; "targets", the global views before they were corrupted.
        """
        image = tf.ensure_shape(image, self.input_shape)
        origins, sizes = self.global_boxes.draw(seeds.fold(seed, 0))
        targets = self.deformation.cut_out(image, origins, sizes, self.global_dim, seeds.fold(seed, 1))
        inputs = {"global_views": self.corruption.apply_to_each(targets, seeds.fold(seed, 2)), "targets": targets}
        if self.num_local_views:
            outer = tf.zeros(self.rank, tf.int32), tf.constant(self.spatial_shape)
            if self.local_region == "bounding_box":
                outer = views.bounding_box(origins, sizes)
            without_swaps = dataclasses.replace(self.corruption, swap_share=0)
            boxes = self.local_boxes.draw(seeds.fold(seed, 3), *outer)
            local = self.deformation.cut_out(image, *boxes, self.local_dim, seeds.fold(seed, 4))
            inputs["local_views"] = without_swaps.apply_to_each(local, seeds.fold(seed, 5))
        return inputs, tf.zeros(2 + 2 * self.num_local_views)

    def _draw_scales(self, inputs: Any, targets: tf.Tensor, seed: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """Draw the scales of a step, the same for all scans of the batch.

        Returns:
            The inputs, and numbers in [0, 1) ``(batch, 2 + 2 num_local_views)``: quantiles among the scales, which
            are known with the encoder, of the restoration, the pair of global views, and each pair (local, global)
            with the global views varying fastest.
        """
        number = targets.shape[1]
        drawn = tf.random.stateless_uniform((1 if self.scale_draw == "step" else number,), seed)
        return inputs, tf.zeros_like(targets) + drawn

    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return the inputs of `make_example` -> the terms of the loss at every scale and β, see `multi_scale`.

        Raises:
            UserError: A view vanishes, as an encoder for views of any size may pool more often than one for this size.
        """
        for *size, channels in self.encoder_shapes:
            try:
                encoder.compute_output_shape((None, *size, channels))
            except ValueError as error:
                message = f"the encoder leaves nothing of a view of {size} voxels; enlarge it, or pool less often"
                raise UserError(f"global_dim, local_dim: {message} (num_layers, pool_schedule)") from error
        shapes = ((*size, self.input_shape[-1]) for size in (self.global_dim, self.local_dim))
        network = multi_scale.MultiScaleNetwork(
            *shapes, self.num_local_views, self.restoration_head, self.normalization, self.dropout
        )
        return network.build(encoder, seed=seed, name=self.name)

    def callbacks(self, model: keras.Model, epochs: int) -> list[keras.callbacks.Callback]:
        """Return what sets β, the weight of the restoration at the scale that is drawn, before each epoch."""
        beta = model.get_layer(multi_scale.WEIGHT_LAYER).kernel

        def set_beta(epoch: int, logs: Any = None) -> None:
            beta.assign([(1 + math.cos(math.pi * epoch / epochs)) / 2])

        return [keras.callbacks.LambdaCallback(on_epoch_begin=set_beta)]

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return L_R and the comparisons at the scales drawn, float32, ``(batch,)``.

        Args:
            y_true: Quantiles of the scales from `_draw_scales`.
            y_pred: Terms at every scale, see `make_model`.
        """
        ops = keras.ops
        terms = ops.cast(y_pred, "float32")
        terms, beta, scales = terms[..., :-1], terms[:, -1, -1:], terms.shape[1]
        index = ops.cast(ops.floor(ops.cast(y_true, "float32") * scales), "int32")
        index = ops.concatenate([index[:, :1], index], axis=1)  # both views are restored at one scale
        drawn = ops.take_along_axis(terms, ops.minimum(index, scales - 1)[:, None], axis=1)[:, 0]
        errors = drawn[:, :2]
        if self.restoration != "paper":
            errors = terms[:, -1, :2] + beta * errors
        restored = errors[:, 0] if self.restoration == "code" else ops.sum(errors, axis=1)
        loss = restored + drawn[:, 2]
        if self.num_local_views:
            loss = loss + (ops.mean if self.local_loss == "mean" else ops.sum)(drawn[:, 3:], axis=1)
        return loss

    def metrics(self) -> list[Any]:
        """Return the parts of the loss by themselves, over all scales, whichever were drawn."""
        return [self.restoration_mse, self.comparison, *([self.local_comparison] if self.num_local_views else [])]

    def restoration_mse(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean squared error of the restorer, over both global views, ``(batch,)``."""
        return keras.ops.mean(y_pred[:, -1, :2], axis=1)

    def comparison(self, y_true: Any, y_pred: Any) -> Any:
        """Return L_C of the global views, the mean over the scales, in [-1, 1]: ``(batch,)``."""
        return keras.ops.mean(y_pred[:, :, 2], axis=1)

    def local_comparison(self, y_true: Any, y_pred: Any) -> Any:
        """Return L_C of local and global views, the mean over pairs and scales, in [-1, 1]: ``(batch,)``."""
        return keras.ops.mean(y_pred[:, :, 3:-1], axis=(1, 2))

    def codes(self, model: keras.Model) -> dict[str, Any]:
        """Return the codes of both global views at each scale, see `multi_scale.codes`."""
        return multi_scale.codes(model)

    def restorer(self, model: keras.Model) -> keras.Model:
        """Return what the encoder sees -> the restored image, by the head of the finest scale."""
        return multi_scale.restorer(model)

    def restorations(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Return the corrupted global views and what they were, each ``(batch, 2, *global_dim, channels)``."""
        return inputs["global_views"], inputs["targets"]

    def describe(self, inputs: dict[str, np.ndarray], targets: np.ndarray) -> list[Panel]:
        """Show the global views before and after their corruption, and the local views as the encoder sees them."""
        panels = []
        for number in range(2):
            panels.append(Panel(f"global view {number + 1}: to be restored", np.asarray(inputs["targets"][number])))
            panels.append(Panel(f"global view {number + 1}: corrupted", np.asarray(inputs["global_views"][number])))
        local = inputs["local_views"] if self.num_local_views else []
        return panels + [Panel(f"local view {number}", np.asarray(view)) for number, view in enumerate(local, start=1)]
