"""The largest connected component of a class, where an organ is in one piece."""

from collections.abc import Sequence

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.errors import UserError

ndimage = lazy.load("scipy.ndimage")


def classes_of(text: str | None, num_classes: int) -> tuple[int, ...]:
    """Return the classes that a flag names.

    Args:
        text: "all" foreground classes, or numbers with commas between them; None: no class.
        num_classes: Classes including background.

    Raises:
        UserError: There is no such class, or it is the background.
    """
    if text is None:
        return ()
    known = [str(label) for label in range(1, num_classes)]
    names = known if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise UserError(
                f"--largest_component: expected all, or numbers of classes from 1 to {num_classes - 1} with commas "
                f"between them, received {text!r}"
            )
    return tuple(sorted(set(map(int, names))))


def keep_largest(mask: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Return a mask in which each of some classes is in one piece; its other voxels become background.

    Voxels are connected through their faces. Of components of one size the first one stays, in the order of their
    first voxels.

    Args:
        mask: ``(*spatial)``, uint8.
        classes: Foreground classes.
    """
    boxes = ndimage.find_objects(mask)
    mask = mask.copy()
    for label in classes:
        if label <= len(boxes) and (box := boxes[label - 1]) is not None:
            found = mask[box] == label
            components, count = ndimage.label(found)
            if count > 1:
                sizes = np.bincount(components.ravel())
                sizes[0] = 0
                mask[box][found & (components != sizes.argmax())] = 0
    return mask
