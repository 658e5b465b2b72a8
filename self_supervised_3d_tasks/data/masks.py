"""Which file is the mask of a case: in a folder of masks that is a tree like that of the scans, or beside the scan."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from self_supervised_3d_tasks.data import naming, trees
from self_supervised_3d_tasks.data.trees import Place, Tree
from self_supervised_3d_tasks.errors import UserError


def folders_for(tree: Tree, mask_dir: Path | None, label_stem: str) -> dict[Path, Path]:
    """Return the folders of masks that a tree of scans has, by the folder of scans that each belongs to.

    The folder that is given; or ``<root>_labels``; or ``labelsTr`` beside ``imagesTr``, which may be the root or lie
    inside it; or, with a ``label_stem``, the folders of the scans themselves.

    Raises:
        UserError: There is none of them.
    """
    if mask_dir is not None:
        candidates = [mask_dir]
    else:
        candidates = [tree.root.with_name(name) for name in naming.mask_folders_of(tree.root.name)]
    for folder in candidates:
        if folder.is_dir():
            return {tree.root: folder}
    if mask_dir is None and (tree.mask_folders or label_stem):
        return tree.mask_folders or {tree.root: tree.root}
    raise UserError(
        f"{candidates[0]}: this folder of masks does not exist. Create it, or set label_dir_train or label_dir_test; "
        "or label_stem where masks lie beside their scans."
    )


def find(
    cases: Mapping[str, Place], tree: Tree, folders: Mapping[Path, Path], label_stem: str, suffixes: Sequence[str]
) -> dict[str, Path]:
    """Return the mask of each case that has one: at the same place in the folder of masks, or called as the case is.

    Args:
        cases: Where the scan of each case lies, with the stem that its mask's begins with.
        tree: The scans.
        folders: What `folders_for` gives.
        label_stem: What the stem of a mask has more.
        suffixes: Endings of masks.

    Raises:
        UserError: A folder holds no mask, or one that cannot be.
    """
    found: dict[str, Path] = {}
    for scans, folder in folders.items():
        masks = trees.walk(folder, suffixes, endings=(label_stem,)).files
        stems = Counter(place.stem for place in masks)
        alone = {place.stem: path for place, path in masks.items() if stems[place.stem] == 1}
        below = os.path.relpath(scans, tree.root).replace(os.sep, "/")
        for name, place in cases.items():
            if below != "." and place.folder != below and not place.folder.startswith(f"{below}/"):
                continue
            inside = place.folder if below == "." else place.folder[len(below) + 1 :]
            mask = masks.get(Place(inside, f"{place.stem}{label_stem}")) or alone.get(f"{name}{label_stem}")
            if mask:
                found[name] = mask
    return found


def missing(
    cases: Mapping[str, Place], found: Mapping[str, Path], expected: Path, ending: str, scan_of: Mapping
) -> str:
    """Return the message about cases without a mask, or an empty string.

    Args:
        cases: As in `find`.
        found: What it gave.
        expected: A folder of masks.
        ending: What the name of a mask has more than that of its case.
        scan_of: The files of each case.
    """
    without = [name for name in sorted(cases) if name not in found]
    if not without:
        return ""
    first = without[0]
    return (
        f"{expected}: {len(without)} of {len(cases)} scans have no mask; the first missing one is "
        f"{cases[first].stem}{ending} for {scan_of[first][0]}. Add the masks, remove the scans, or set label_stem "
        "(what the name of a mask has more than its scan's)."
    )
