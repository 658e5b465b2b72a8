"""Random changes of a view ``(*spatial, channels)``: those that what is to be restored shares, and those it does not.

Zhou et al. 2023, "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical
Image Analysis" (PCRLv2): its t and t'. Each is the same for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import geometry, intensity, seeds, swap


@dataclass(frozen=True)
class Deformation:
    """A flip from left to right and a linear map about the centre; what comes from outside has the view's minimum.

    Args:
        flip: Whether every second view is flipped: the first axis of a volume, the second of an image.
        scale: Each axis is magnified by U(1 ± ``scale``), in [0, 1).
        degrees: Rotation by U(± ``degrees``) in each plane.
    """

    flip: bool
    scale: float
    degrees: float

    def apply(self, view: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the view in another pose."""
        rank = view.shape.rank - 1
        if self.flip:
            # The files of volumes begin with the axis from left to right, those of photographs with the rows.
            left_right = tf.constant([rank == 3, rank == 2])
            view = geometry.flip(view, geometry.draw_flips(seeds.fold(seed, 0), 1) & left_right)
        if self.scale == self.degrees == 0:
            return view
        matrix = geometry.draw_affine(seeds.fold(seed, 1), rank, scale=self.scale, degrees=self.degrees)
        return geometry.affine(view, matrix, fill=tf.reduce_min(view))


@dataclass(frozen=True)
class Corruption:
    """Blur, noise, a bent contrast and cells that trade places, in this order; 0 leaves one of them out.

    Args:
        blur_sigma: Largest width of the Gaussian in voxels, drawn from U(0, that).
        noise_sigma: Largest standard deviation of the noise, in the view's units; likewise. The sum is clipped to
            [0, 1].
        gamma: log g from U(± that) of x^g, where x is clipped to [0, 1].
        swap_share: Share of the cells that trade places.
        swap_cell: ``(*spatial)`` of a cell in voxels.
    """

    blur_sigma: float
    noise_sigma: float
    gamma: float
    swap_share: float
    swap_cell: Sequence[int]

    def apply(self, view: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the view with its shapes where they were, but for the cells."""
        own = [seeds.fold(seed, draw) for draw in range(5)]
        if self.blur_sigma > 0:
            sigma = tf.random.stateless_uniform((), own[0], 0.0, self.blur_sigma)
            view = intensity.gaussian_blur(view, sigma, max_sigma=self.blur_sigma)
        if self.noise_sigma > 0:
            sigma = tf.random.stateless_uniform((), own[1], 0.0, self.noise_sigma)
            view = tf.clip_by_value(intensity.gaussian_noise(view, sigma, own[2]), 0.0, 1.0)
        if self.gamma > 0:
            exponent = tf.exp(tf.random.stateless_uniform((), own[3], -self.gamma, self.gamma))
            view = intensity.gamma(view, exponent)
        if self.swap_share > 0:
            view = swap.swap_cells(view, own[4], cell=self.swap_cell, share=self.swap_share)
        return view
