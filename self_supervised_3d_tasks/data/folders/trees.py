"""The files of a folder and of its sub-folders, and what there is beside them.

Nothing passes in silence: what is no scan is counted under the reason, and what only looks like one is an error.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from absl import logging

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.folders import naming
from self_supervised_3d_tasks.errors import UserError, describe
from self_supervised_3d_tasks.files.paths import composed, is_folder, problem, reading

HIDDEN, OTHER, SAME = "hidden", "of other formats", "links into the same folder"
EMPTY, MASKS, BIDS = "sub-folders without scans", "folders of masks", "derivatives or sourcedata of BIDS"
UNCHOSEN = "with none of the endings that are asked for"


class Place(NamedTuple):
    """Where a file lies.

    Attributes:
        folder: Folder, relative to the root of the tree, with ``/`` between its parts; ``""`` for the root itself.
        stem: File name without its suffix.
    """

    folder: str
    stem: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the folders, from the root down."""
        return tuple(self.folder.split("/")) if self.folder else ()


@dataclass(frozen=True)
class Tree:
    """What a walk has found.

    Args:
        root: The folder that was searched.
        files: Every file with one of the suffixes by its place, sorted.
        mask_folders: Folders of scans with the folder of their masks, which was not searched.
        left_out: What else there was, with the reason.
    """

    root: Path
    files: dict[Place, Path] = field(default_factory=dict)
    mask_folders: dict[Path, Path] = field(default_factory=dict)
    left_out: list[tuple[Path, str]] = field(default_factory=list)

    def tell(self, count: int, more: Iterable[tuple[str, int]] = ()) -> None:
        """Say in one line what was left out; nothing where nothing was.

        Args:
            count: Number of scans that were taken.
            more: Further reasons and numbers.
        """
        reasons = Counter(reason for _, reason in self.left_out)
        others = Counter(_ending(path) for path, reason in self.left_out if reason == OTHER)
        named = ", ".join(f"{ending} {number}" for ending, number in others.most_common(3))
        texts = [f"{number} {reason}{f' ({named})' if reason == OTHER else ''}" for reason, number in reasons.items()]
        texts += [f"{number} {reason}" for reason, number in more if number]
        if texts:
            logging.info("%s: %d scans; left out: %s.", self.root, count, ", ".join(texts))


def walk(
    root: Path,
    suffixes: Sequence[str],
    *,
    endings: Sequence[str] = ("",),
    apart: Sequence[Path] = (),
    masks: bool = False,
) -> Tree:
    """Search a folder and its sub-folders, one listing each and no look at any file but links.

    Args:
        root: Folder.
        suffixes: Endings of the files that are looked for.
        endings: What their stems end in, any of them.
        apart: Folders inside that are not searched.
        masks: Whether it is a folder of masks, in which formats of folders of files may have others than of scans.

    Raises:
        UserError: ``root`` does not exist; or something that is no file, as a link that leads
            nowhere, has the name of one, or two files have one name but for the suffix.
    """
    if wrong := problem(root, folder=True):
        raise UserError(f"{root}: expected the folder of scans: {wrong}")
    search = _Search(Tree(root), frozenset(suffixes), tuple(endings), frozenset(map(os.fspath, apart)), masks)
    search.enter(os.fspath(root), "")
    tree = search.tree
    if search.dangling:
        first = search.dangling[0]
        raise UserError(
            f"{root}: {len(search.dangling)} of {len(tree.files) + len(search.dangling)} files are links that lead "
            f"nowhere, the first {first} -> {os.readlink(first)}. Fetch what they stand for (git annex get, datalad "
            "get), or remove the links."
        )
    ordered = dict(sorted(tree.files.items(), key=lambda item: os.fspath(item[1])))
    return Tree(root, ordered, tree.mask_folders, tree.left_out)


class _Search:
    """One walk: what was found so far, and the linked folders that were entered."""

    def __init__(
        self, tree: Tree, suffixes: frozenset[str], endings: tuple[str, ...], apart: frozenset[str], masks: bool
    ) -> None:
        self.tree, self.endings, self.apart, self.masks = tree, endings, apart, masks
        self.series = [
            module for module in formats.known() if hasattr(module, "scans_in") and suffixes & set(module.SUFFIXES)
        ]
        self.of_series = {suffix for module in self.series for suffix in module.SUFFIXES}
        self.suffixes = suffixes - self.of_series
        self.entered = {os.path.realpath(tree.root)}
        self.dangling: list[str] = []

    def enter(self, folder: str, place: str) -> None:
        """Search a folder, whose path from the root is ``place``."""
        try:
            with reading(folder), os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"cannot be listed: {describe(error)}") from error
        folders = [entry for entry in entries if is_folder(entry) and not entry.name.startswith(".")]
        found, masks = len(self.tree.files), _mask_folders({entry.name for entry in folders})
        others = []
        for entry in entries:
            if entry.name.startswith("."):
                self._leave(entry.path, HIDDEN)
            elif not self._takes(entry, place) and not is_folder(entry):
                others.append(entry.path)
                self._check_slice(entry)
        formats.check_headers([Path(entry.path) for entry in entries if not is_folder(entry)], self.suffixes)
        taken = self._series_of(folder, place, others)
        for path in others if not taken else [path for path in others if path not in taken]:
            self._leave(path, OTHER)
        for entry in folders:
            if entry.name in masks:
                self.tree.mask_folders[Path(folder, masks[entry.name])] = Path(entry.path)
            beside_subjects = entry.name in naming.BESIDE_SUBJECTS and any(
                sub.name.startswith("sub-") for sub in folders
            )
            reason = MASKS if entry.name in masks else BIDS if beside_subjects else self._reason_against(entry)
            if reason:
                self._leave(entry.path, reason)
            else:
                self.enter(entry.path, composed(f"{place}/{entry.name}" if place else entry.name))
        if place and not folders and len(self.tree.files) == found and not self.dangling:
            self._leave(folder, EMPTY)

    def _takes(self, entry: os.DirEntry, place: str) -> bool:
        """Return whether an entry has the name of a scan; it is noted, or refused where it is no file."""
        suffix = formats.suffix_of(Path(entry.name))
        if suffix not in self.suffixes:
            return False
        stem = composed(entry.name[: len(entry.name) - len(suffix)])
        if not stem.endswith(self.endings):
            if not is_folder(entry):
                self._leave(entry.path, UNCHOSEN)
            return True
        if _is_dangling(entry):
            self.dangling.append(entry.path)
            return True
        if wrong := problem(Path(entry.path)):
            raise UserError(f"{entry.path}: has the name of a scan, but {wrong}, or move this away")
        self._note(Place(place, stem), Path(entry.path))
        return True

    def _check_slice(self, entry: os.DirEntry) -> None:
        """Note a link that leads nowhere and refuse a pipe where a slice of a series is expected."""
        is_slice = formats.suffix_of(Path(entry.name)) in self.of_series
        if _is_dangling(entry):
            if is_slice:
                self.dangling.append(entry.path)
            elif not _ending(Path(entry.name)):  # what it stands for may be a folder of scans
                logging.warning("%s: %s", entry.path, problem(Path(entry.path)))
        elif is_slice and (wrong := problem(Path(entry.path))):
            raise UserError(f"{entry.path}: has the name of a slice, but {wrong}, or move this away")

    def _series_of(self, folder: str, place: str, others: list[str]) -> set[str]:
        """Note the scans that a folder's files make together, as a series of slices; return the files that do."""
        candidates = [
            path for path in others if formats.suffix_of(Path(path)) in self.of_series or not _ending(Path(path))
        ]
        if not self.series or not candidates:
            return set()
        scans = [scan for module in self.series for scan in module.scans_in(Path(folder))]
        if self.masks and not scans:
            scans = [mask for module in self.series for mask in module.masks_in(Path(folder))]
        for scan in scans:
            stem = composed(formats.stem_of(scan))
            if stem.endswith(self.endings):
                self._note(Place(place, stem), scan)
        return set(candidates) if scans else set()

    def _note(self, place: Place, path: Path) -> None:
        if place in self.tree.files:
            raise UserError(
                f"{self.tree.files[place]} and {path}: expected one file of this name. Remove one of the two."
            )
        self.tree.files[place] = path

    def _reason_against(self, entry: os.DirEntry) -> str:
        """Return why a folder is not searched, or an empty string."""
        if entry.path in self.apart:
            return MASKS
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if any(target == other or target.startswith(f"{other}{os.sep}") for other in self.entered):
                return SAME
            self.entered.add(target)
        return ""

    def _leave(self, path: str, reason: str) -> None:
        self.tree.left_out.append((Path(path), reason))


def unique_names(places: Sequence[Place]) -> list[str]:
    """Return a name for each place: its stem where no other has it, else its folders and its stem, joined by ``_``.

    Raises:
        UserError: Two names are the same all the same.
    """
    counts = Counter(place.stem for place in places)
    found: dict[str, Place] = {}
    for place in places:
        parts = [place.stem] if place.stem and counts[place.stem] == 1 else [*place.parts, place.stem]
        name = "_".join(filter(None, parts))
        if name in found:
            first, second = ("/".join(filter(None, other)) for other in (found[name], place))
            raise UserError(f"{first} and {second}: both cases would be called {name!r}. Rename one of the two.")
        found[name] = place
    return list(found)


def _mask_folders(names: set[str]) -> dict[str, str]:
    """Return the folders of masks among folders, each with that of its scans."""
    pairs = ((mask, scans) for scans in sorted(names) for mask in naming.mask_folders_of(scans))
    return {mask: scans for mask, scans in pairs if mask in names}


def _is_dangling(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _ending(path: Path) -> str:
    """Return what a name of another format ends in, for counts."""
    return path.suffix.lower()
