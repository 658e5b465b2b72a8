"""The scans in a tree: which of its files are channels of one case, which are masks, and what the cases are called."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks.data.folders import naming, trees
from self_supervised_3d_tasks.data.folders.trees import Place, Tree
from self_supervised_3d_tasks.errors import UserError


@dataclass(frozen=True)
class Scans:
    """The scans of a tree by the names of their cases.

    Args:
        tree: Where they lie.
        places: Folder of each case, with the stem that its files begin with.
        files: Its files, in the order of the channels.
    """

    tree: Tree
    places: dict[str, Place]
    files: dict[str, tuple[Path, ...]]

    @classmethod
    def find(
        cls,
        folder: Path,
        suffixes: Sequence[str],
        *,
        label_stem: str,
        channel_suffixes: Sequence[str] | None,
        apart: Sequence[Path] = (),
    ) -> Scans:
        """Search a folder, say what it holds beside scans, and warn of scans that seem to be none.

        Args:
            folder: Where to search.
            suffixes: Endings of the files.
            label_stem: What masks end in.
            channel_suffixes: What the channels of a case end in; None: every file is a case.
            apart: Folders of masks, which are not searched unless they are ``folder``.

        Raises:
            UserError: As `trees.walk`, or a case has not all its channels, or two cases would have one name.
        """
        endings = (*channel_suffixes, *filter(None, [label_stem])) if channel_suffixes else ("",)
        tree = trees.walk(folder, suffixes, endings=endings, apart=[other for other in apart if other != folder])
        if not tree.files and not any(reason == trees.UNCHOSEN for _, reason in tree.left_out):
            raise UserError(
                f"{folder}: expected {' or '.join(suffixes)} files here or in sub-folders, found none "
                f"({len(tree.left_out)} other files or folders)."
            )
        beside = _masks_beside(tree.files, label_stem)
        scans = {place: path for place, path in tree.files.items() if place not in beside}
        groups = _group_channels(folder, scans, channel_suffixes)
        files = dict(zip(trees.unique_names(list(groups)), groups.values(), strict=True))
        tree.tell(len(files), [(f"masks, which end in {label_stem!r}", len(beside))])
        _warn_of_kinds(folder, scans, chosen=bool(channel_suffixes))
        return cls(tree, dict(zip(files, groups, strict=True)), files)


def _masks_beside(files: Mapping[Place, Path], label_stem: str) -> set[Place]:
    """Return the masks beside their scans: what is before their ``label_stem`` begins another file's name."""
    if not label_stem:
        return set()
    found = {place for place in files if place.stem.endswith(label_stem)}
    others = {place.folder: [] for place in found}
    for place in files.keys() - found:
        if place.folder in others:
            others[place.folder].append(place.stem)
    for stems in others.values():
        stems.sort()
    return {place for place in found if _begins(others[place.folder], place.stem.removesuffix(label_stem))}


def _begins(stems: Sequence[str], start: str) -> bool:
    """Return whether one of some sorted stems begins with ``start``."""
    position = bisect.bisect_left(stems, start)
    return position < len(stems) and stems[position].startswith(start)


def _group_channels(
    folder: Path, files: Mapping[Place, Path], channel_suffixes: Sequence[str] | None
) -> dict[Place, tuple[Path, ...]]:
    """Return the files of each case, in the order of its channels."""
    if not channel_suffixes:
        return {place: (path,) for place, path in files.items()}
    groups: dict[Place, dict[str, Path]] = {}
    for place, path in files.items():
        # The longest ending wins: with "_t1" and "_ce_t1", "a_ce_t1" is the second channel of "a".
        suffix = max((suffix for suffix in channel_suffixes if place.stem.endswith(suffix)), key=len, default=None)
        if suffix is not None:
            groups.setdefault(Place(place.folder, place.stem.removesuffix(suffix)), {})[suffix] = path
    if not groups:
        raise UserError(f"{folder}: no file ends in any of channel_suffixes {list(channel_suffixes)}.")
    for place, channels in groups.items():
        missing = [suffix for suffix in channel_suffixes if suffix not in channels]
        if missing:
            raise UserError(
                f"{folder / place.folder}: case {place.stem!r} has no file for {', '.join(missing)}; expected one for "
                f"each of channel_suffixes {list(channel_suffixes)}. Add it, or remove the case."
            )
    return {place: tuple(channels[suffix] for suffix in channel_suffixes) for place, channels in groups.items()}


def _warn_of_kinds(folder: Path, files: Mapping[Place, Path], *, chosen: bool) -> None:
    """Warn of masks, and of several scans of one case, that all count as scans of their own."""
    beside = naming.masks_beside(files)
    if beside:
        place = next(iter(beside))
        logging.warning(
            "%s: %d files look like masks beside their scans, such as %s, but count as scans. If they are masks, set "
            "label_stem to %r.",
            folder,
            len(beside),
            files[place],
            beside[place],
        )
    kinds = naming.kinds_of_one_case(place for place in files if place not in beside)
    if kinds and not chosen:
        logging.warning(
            "%s: scans of one case are of several kinds (%s), and each counts as a scan of its own. To choose some, or "
            "to make them the channels of one, set channel_suffixes.",
            folder,
            ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(6)),
        )
