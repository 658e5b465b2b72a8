"""Which file is the mask of a case: in a folder of masks that is a tree like that of the scans, or beside the scan."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from self_supervised_3d_tasks.data.folders import naming, trees
from self_supervised_3d_tasks.data.folders.trees import Place, Tree
from self_supervised_3d_tasks.data.formats import stem_of
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.paths import check_folder, composed


def find(
    cases: Mapping[str, Place],
    files: Mapping[str, Sequence[Path]],
    tree: Tree,
    mask_dir: Path | None,
    label_stem: str,
    suffixes: Sequence[str],
) -> dict[str, Path]:
    """Return the mask of each case: at the place of the scan in the folder of masks, or called as the case is.

    The folder of masks is the one that is given; or the first of these with a mask: ``<root>_labels``; ``labelsTr``
    beside ``imagesTr``, where one of them is the root or lies inside; with a ``label_stem`` the scans' own folders.

    Args:
        cases: Where the scan of each case lies, with the stem that its mask's begins with.
        files: The files of each case.
        tree: The scans.
        mask_dir: Folder of masks, which may be that of the scans.
        label_stem: What the stem of a mask has more.
        suffixes: Endings of masks.

    Raises:
        UserError: As `trees.walk`, or a case has no mask, or there is no folder of masks.
    """
    beside = label_stem != "" and any(place.stem.endswith(label_stem) for place in tree.files)
    candidates = _candidates(tree, mask_dir, beside=beside)
    found: dict[str, Path] = {}
    for folders in candidates:
        for scans, folder in folders.items():
            found |= in_folder(cases, files, os.path.relpath(scans, tree.root), folder, label_stem, suffixes)
        if found:
            break
    missing = [name for name in sorted(cases) if name not in found]
    if missing:
        expected, first = next(iter(candidates[0].values())), missing[0]
        raise UserError(
            f"{expected}: {len(missing)} of {len(cases)} scans have no mask; the first missing one is "
            f"{cases[first].stem}{label_stem}{suffixes[-1]} for {files[first][0]}. Add the masks, remove the scans, or "
            "set label_stem (what the name of a mask has more than its scan's)."
        )
    return found


def _candidates(tree: Tree, mask_dir: Path | None, *, beside: bool) -> list[dict[Path, Path]]:
    """Return where masks may be: folders of scans with those of their masks, the likeliest first."""
    if mask_dir is not None:
        folders = [check_folder(mask_dir) if os.path.lexists(mask_dir) else mask_dir]
    else:
        folders = [tree.root.with_name(name) for name in naming.mask_folders_of(tree.root.name)]
    found = [{tree.root: folder} for folder in folders if folder.is_dir()]
    if mask_dir is None:
        found += [tree.mask_folders] if tree.mask_folders else []
        found += [{tree.root: tree.root}] if beside else []
    if not found:
        raise UserError(
            f"{folders[0]}: this folder of masks does not exist. Create it, or set label_dir_train or label_dir_test; "
            "or label_stem where masks lie beside their scans."
        )
    return found


def in_folder(
    cases: Mapping[str, Place],
    files: Mapping[str, Sequence[Path]],
    below: str,
    folder: Path,
    label_stem: str,
    suffixes: Sequence[str],
) -> dict[str, Path]:
    """Return the masks in a folder, of the cases whose scans lie in the folder ``below`` the root of theirs.

    Args:
        cases: As in `find`.
        files: The files of each case; a mask may be called as one of them, too.
        below: Path from the root of the scans, or ``"."``.
        folder: The masks, in the same sub-folders or by the name of the case.
        label_stem: What the stem of a mask has more.
        suffixes: Endings of masks.
    """
    masks = trees.walk(folder, suffixes, endings=(label_stem,), masks=True).files
    stems = Counter(place.stem for place in masks)
    alone = {place.stem: path for place, path in masks.items() if stems[place.stem] == 1}
    prefix = () if below == os.curdir else tuple(Path(composed(below)).parts)
    found = {}
    for name, place in cases.items():
        if place.parts[: len(prefix)] == prefix:
            inside = "/".join(place.parts[len(prefix) :])
            own = [place.stem, *(composed(stem_of(file)) for file in files[name])]
            candidates = [masks.get(Place(inside, f"{stem}{label_stem}")) for stem in own]
            mask = next(filter(None, [*candidates, alone.get(f"{name}{label_stem}")]), None)
            found |= {name: mask} if mask else {}
    return found
