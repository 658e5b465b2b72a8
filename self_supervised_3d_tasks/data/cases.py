"""The scans of a folder, each with its mask or class and with the subject whose scan it is.

A folder is flat. Masks lie in ``<folder>_labels`` unless told otherwise, named ``<stem of the scan><label_stem>``;
classes of whole scans stand in a table. A part of an archive acts as a folder, see `archives`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.data.formats import archives, list_files, stem_of
from self_supervised_3d_tasks.data.labels.tables import Classes, Label, LabelTable, Row
from self_supervised_3d_tasks.errors import UserError

_SINGLE_SUBJECTS = (
    "%s: every image counts as a subject of its own, so that slices of one scan, or photographs of one person, can "
    'fall on both sides of a split. Set subject_pattern, for example "^(.+)_[0-9]+$" for <subject>_<number>%s.'
)


@dataclass(frozen=True)
class Case:
    """One scan, with its mask or class where there is one.

    Args:
        name: File stem of the scan, without the channel suffix.
        image: File of the scan, or of its first channels; in an archive ``<archive>.npz/<part>/<number>``.
        mask: File of the mask.
        subject: Splits never separate the cases of one subject.
        more_images: Files of the further channels, on the grid of ``image``.
        label: Class of the whole scan, or for each finding whether the scan has it.
    """

    name: str
    image: Path
    mask: Path | None
    subject: str
    more_images: tuple[Path, ...] = ()
    label: Label | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        """All image files, in the order of their channels."""
        return (self.image, *self.more_images)


@dataclass(frozen=True)
class Labels:
    """What every scan of a folder must have: a class where there is a table or an archive, else a mask.

    Args:
        table: Labels of scans; those that it does not name are left out.
        classes: What the labels in an archive stand for; None: they are classes themselves.
        mask_dir: Folder of masks, which may be that of the scans; None: ``<folder>_labels``.
    """

    table: LabelTable | None = None
    classes: Classes | None = None
    mask_dir: str | Path | None = None


def find_cases(
    dataset_name: str,
    data_dir: str | Path,
    labels: Labels | None = None,
    *,
    suffixes: Sequence[str] | None = None,
    label_stem: str | None = None,
    subject_pattern: str | None = None,
    channel_suffixes: Sequence[str] | None = None,
) -> list[Case]:
    """List the cases of a folder, sorted by name.

    Args:
        dataset_name: A name in `layouts.LAYOUTS`.
        data_dir: Flat folder of scans, or part of an archive.
        labels: What every case must have; None: neither masks nor classes are looked for.
        suffixes: Endings of the scans; default: the layout's.
        label_stem: What the stem of a mask has more than its scan's; default: the layout's.
        subject_pattern: Regular expression, searched in the case's name; its group is the subject. Default: what the
            table or the archive says, or else the whole name.
        channel_suffixes: One file per channel, ``<case><suffix>``, in the order of the channels; files with
            none of these endings are no scans.

    Raises:
        UserError: A folder, mask, class or channel is missing, a name occurs twice, or ``subject_pattern`` fails.
    """
    layout = layouts.get(dataset_name)
    folder = _absolute(data_dir)
    if layout.labels == "archive":
        return _archived(archives.Part.at(folder), labels, subject_pattern)
    if archives.contains(folder):
        raise UserError(f'dataset_name: {folder} is an archive, expected "medmnist", received {dataset_name!r}.')
    label_stem = layout.label_stem if label_stem is None else label_stem
    suffixes = suffixes or layout.suffixes
    table = labels and labels.table
    files = _files_by_stem(folder, table.suffixes(suffixes) if table else suffixes)
    groups = _group_channels(folder, _without_masks(files, label_stem), channel_suffixes)
    masks: dict[str, Path] = {}
    rows: dict[str, Row] = {}
    if table:
        rows = table.rows_by_name(folder, groups)
        groups = {name: groups[name] for name in rows}
    elif labels:
        mask_dir = f"{folder}_labels" if labels.mask_dir is None else labels.mask_dir
        masks = _find_masks(groups, _absolute(mask_dir), label_stem, layout.suffixes)
    if table and table.subject_column:
        subjects = {name: row.subject for name, row in rows.items()}
    else:
        subjects = _subjects(groups, subject_pattern)
        if layout.rank == 2 and subject_pattern is None:
            logging.warning(_SINGLE_SUBJECTS, folder, ", or subject_column" if table else "")
    return [
        Case(name, images[0], masks.get(name), subjects[name], images[1:], rows[name].label if rows else None)
        for name, images in sorted(groups.items())
    ]


def _archived(part: archives.Part, labels: Labels | None, subject_pattern: str | None) -> list[Case]:
    paths = {f"{part.name}_{path.name}": path for path in part.paths()}
    subjects = part.subjects() if subject_pattern is None else None
    if subjects is None:
        subjects = _subjects(paths, subject_pattern).values()
    found: Sequence[int | None] = part.labels() if labels else [None] * len(paths)
    if labels and labels.classes:
        found = [labels.classes.of(label, str(path)) for label, path in zip(found, paths.values(), strict=True)]
    return [
        Case(name, path, None, subject, label=label)
        for (name, path), subject, label in zip(paths.items(), subjects, found, strict=True)
    ]


def _absolute(folder: str | Path) -> Path:
    """Return "~/scans/" as "/home/me/scans"; a symbolic link keeps its own name, and so its own labels."""
    return Path(os.path.abspath(Path(folder).expanduser()))


def _files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_files(folder, suffixes):
        stem = stem_of(path)
        if stem in files:
            raise UserError(f"{files[stem]} and {path}: expected one file of this name. Remove one of the two.")
        files[stem] = path
    return files


def _without_masks(files: dict[str, Path], label_stem: str) -> dict[str, Path]:
    """Leave out masks beside their scans: the predecessor wrote them there, and trained on them as scans."""
    masks = {f"{stem}{label_stem}" for stem in files if label_stem} & files.keys()
    if masks:
        logging.info("%d files that end in %r are masks, not scans.", len(masks), label_stem)
    return {stem: path for stem, path in files.items() if stem not in masks}


def _group_channels(
    folder: Path, files: dict[str, Path], channel_suffixes: Sequence[str] | None
) -> dict[str, tuple[Path, ...]]:
    """Return the files of each case, in the order of its channels."""
    if not channel_suffixes:
        return {name: (path,) for name, path in files.items()}
    groups: dict[str, dict[str, Path]] = {}
    for stem, path in files.items():
        # The longest ending wins: with "_t1" and "_ce_t1", "a_ce_t1" is the second channel of "a".
        suffix = max((suffix for suffix in channel_suffixes if stem.endswith(suffix)), key=len, default=None)
        if suffix is not None:
            groups.setdefault(stem.removesuffix(suffix), {})[suffix] = path
    if not groups:
        raise UserError(f"{folder}: no file ends in any of channel_suffixes {list(channel_suffixes)}.")
    for name, channels in groups.items():
        missing = [suffix for suffix in channel_suffixes if suffix not in channels]
        if missing:
            raise UserError(
                f"{folder}: case {name!r} has no file for {', '.join(missing)}; expected one for each of "
                f"channel_suffixes {list(channel_suffixes)}. Add it, or remove the case."
            )
    return {name: tuple(channels[suffix] for suffix in channel_suffixes) for name, channels in groups.items()}


def _find_masks(
    groups: dict[str, tuple[Path, ...]], folder: Path, label_stem: str, suffixes: Sequence[str]
) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: this folder of masks does not exist. Create it, or set label_dir_train or label_dir_test."
        )
    files = _files_by_stem(folder, suffixes)
    missing = [name for name in sorted(groups) if f"{name}{label_stem}" not in files]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(groups)} scans have no mask; the first missing one is "
            f"{missing[0]}{label_stem}{suffixes[-1]} for {groups[missing[0]][0]}. Add the masks, remove the "
            "scans, or set label_stem (what the name of a mask has more than its scan's)."
        )
    return {name: files[f"{name}{label_stem}"] for name in groups}


def _subjects(names: Iterable[str], pattern: str | None) -> dict[str, str]:
    if pattern is None:
        return {name: name for name in names}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"subject_pattern: {pattern!r} is no regular expression ({error}).") from error
    if compiled.groups != 1:
        raise UserError(f"subject_pattern: expected one (group), {pattern!r} has {compiled.groups}.")
    matches = {name: compiled.search(name) for name in names}
    for name, match in matches.items():
        if not match or match[1] is None:
            raise UserError(f"subject_pattern: {pattern!r} does not match the case {name!r}.")
    return {name: match[1] for name, match in matches.items()}
