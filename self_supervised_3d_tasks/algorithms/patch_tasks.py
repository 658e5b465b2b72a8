"""Pretext tasks whose encoder sees patches of a scan, one in each cell of a grid."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.algorithms.kinds import SelectiveAlgorithm
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import PositiveInt, Seed
from self_supervised_3d_tasks.ops import permutations, seeds


@dataclass(kw_only=True, eq=False)
class PatchAlgorithm(SelectiveAlgorithm):
    """A pretext task that cuts patches out of a scan as its ``grid`` says, which `ops.patches` has two kinds of."""

    @property
    def encoder_shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of a patch."""
        return (*self.grid.patch_shape, self.input_shape[-1])

    def inputs_and_codes(self, encoder: Any, number: int) -> tuple[Any, Any]:
        """Return the input ``(batch, number, *encoder_shape)`` of a model and the codes of its patches.

        They are ``(batch, number, size)``, and of one call: the patches share the statistics of batch normalization.
        """
        inputs = keras.Input((number, *self.encoder_shape), name="patches")
        codes = encoder(keras.ops.reshape(inputs, (-1, *self.encoder_shape)))
        codes = keras.layers.Flatten(name="flatten")(codes)
        return inputs, keras.ops.reshape(codes, (-1, number, codes.shape[-1]))


@dataclass(kw_only=True, eq=False)
class PuzzleAlgorithm(PatchAlgorithm):
    """A pretext task that presents the patches of a scan in one of several orders, its class.

    Args:
        num_permutations: Number of orders.
        permutation_seed: Seed of the choice of the orders.
    """

    num_permutations: Annotated[PositiveInt, Field(ge=2)] | None = None
    permutation_seed: Seed = 0

    @property
    def num_patches(self) -> int:
        """Number of patches in a puzzle."""
        return len(self.grid.cells())

    @functools.cached_property
    def permutations(self) -> np.ndarray:
        """``(classes, patches)``: by class, which patch of the scan is presented at each place, in raster order."""
        return permutations.permutation_set(self.num_patches, self.num_permutations, self.permutation_seed)

    def settings(self) -> dict[str, Any]:
        """Return the permutations, which are what a class means."""
        return {"permutations": self.permutations.tolist()}

    def draw_order(self, seed: Any) -> tuple[Any, Any]:
        """Return the class, an int32 scalar, and the first voxels ``(patches, rank)`` in the order presented.

        Args:
            seed: ``(2,)`` int32.
        """
        label = tf.random.stateless_uniform((), seeds.fold(seed, 0), 0, self.num_permutations, tf.int32)
        order = tf.gather(tf.constant(self.permutations), label)
        return label, tf.gather(self.grid.draw_origins(seeds.fold(seed, 1)), order)

    def panels(
        self, label: int, shown: np.ndarray, undone: np.ndarray, solution: str, done: Callable[[int], str]
    ) -> list[Panel]:
        """Return the puzzle, its solution, and the first seven patches under the cells that they come from.

        In 3D they are the first of the layer that a preview shows, the middle of the last axis.

        Args:
            label: The class.
            shown: Patches as presented, ``(patches, *patch, channels)``.
            undone: Patches in the same order, but without what else was done to them.
            solution: Title of the solution.
            done: Says what else was done to the patch at a place; "" for nothing.
        """
        order, cells, middle = self.permutations[label], self.grid.cells(), self.grid.sides[-1] // 2
        places = [place for place, cell in enumerate(cells) if self.rank == 2 or cell[-1] == middle]
        return [
            Panel(f"class {label}: presented", self.grid.assemble(shown)),
            Panel(solution, self.grid.assemble(undone[np.argsort(order)])),
            *(Panel(f"from {cells[order[place]]}{done(place)}", shown[place]) for place in places[:7]),
        ]
