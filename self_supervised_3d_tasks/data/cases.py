"""The scans of a folder or an index, each with its mask or class and with the subject whose scan it is.

A folder is searched with its sub-folders (`scans`). Its masks lie in a folder of their own, or beside the scans
(`masks`), named ``<stem of the scan><label_stem>``; classes of whole scans stand in a table. An `index` names scans,
masks and classes in one table. A part of an archive acts as a folder, see `archives`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.data.folders import index, masks
from self_supervised_3d_tasks.data.folders.scans import Scans
from self_supervised_3d_tasks.data.folders.subjects import subjects_of
from self_supervised_3d_tasks.data.folders.trees import Place
from self_supervised_3d_tasks.data.formats import archives
from self_supervised_3d_tasks.data.labels.tables import Classes, Label, LabelTable
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.paths import as_path

_SINGLE_SUBJECTS = (
    "%s: every image counts as a subject of its own, so that slices of one scan, or photographs of one person, can "
    'fall on both sides of a split. Set subject_pattern, for example "^(.+)_[0-9]+$" for <subject>_<number>%s.'
)


@dataclass(frozen=True)
class Case:
    """One scan, with its mask or class where there is one.

    Args:
        name: File stem of the scan, without the channel suffix, where no other scan has it, else its path below the
            folder with ``_`` for ``/``; or its id in an index.
        image: File of the scan, or of its first channels; in an archive ``<archive>.npz/<part>/<number>``.
        mask: File of the mask.
        subject: Splits never separate the cases of one subject.
        more_images: Files of the further channels, on the grid of ``image``.
        label: Class of the whole scan, or for each finding whether the scan has it.
        row: File and row of an index that the case comes from, for messages.
        columns: Name and cell of the columns of that row that nothing else here says, such as its session.
    """

    name: str
    image: Path
    mask: Path | None
    subject: str
    more_images: tuple[Path, ...] = ()
    label: Label | None = None
    row: str = ""
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """All image files, in the order of their channels."""
        return (self.image, *self.more_images)


@dataclass(frozen=True)
class Labels:
    """What every scan of a folder must have: a class where there is a table or an archive, else a mask.

    Args:
        table: Labels of scans; those that it does not name are left out.
        classes: What the labels in an archive or an index stand for; None: those of an archive are classes themselves,
            and those of an index are not read, but its masks.
        mask_dir: Folder of masks, which may be that of the scans; None: see `masks.find`.
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
    channel_columns: Sequence[str] | None = None,
    predictions: str | Path | None = None,
) -> list[Case]:
    """List the cases of a folder or an index, sorted by name. One line says what else is in the folder.

    Args:
        dataset_name: A name in `layouts.LAYOUTS`.
        data_dir: Folder of scans, part of an archive, or index.
        labels: What every case must have; None: neither masks nor classes are looked for.
        suffixes: Endings of the scans; default: the layout's. With them the layout of an index takes a folder too.
        label_stem: What the stem of a mask beside its scan has more; default: the layout's. Such files are no scans.
        subject_pattern: Regular expression, searched in the case's name, or in its path below the folder; its group is
            the subject. Default: what the table, the archive or the index says, or else what `subjects` finds.
        channel_suffixes: One file per channel, ``<case><suffix>``, in one folder, in the order of the channels; files
            with none of these endings are no scans.
        channel_columns: Columns of an index, one per channel, in their order; default: see `index.read`.
        predictions: Folder of predicted masks, which may lie in ``data_dir`` and holds no scans.

    Raises:
        UserError: A folder, file, mask, class or channel is missing, a name occurs twice, or ``subject_pattern`` fails.
    """
    layout = layouts.get(dataset_name)
    folder = _absolute(data_dir)
    if layout.labels == "archive":
        return _archived(archives.Part.at(folder), labels, subject_pattern)
    if layout.labels == "index" and not (suffixes and folder.is_dir()):
        return _indexed(folder, labels, channel_columns, subject_pattern)
    _check_is_folder(folder, dataset_name)
    label_stem = layout.label_stem if label_stem is None else label_stem
    suffixes = suffixes or layout.suffixes
    table = labels and labels.table
    mask_dir = _absolute(labels.mask_dir) if labels and labels.mask_dir else None
    searched = table.suffixes(suffixes) if table else suffixes
    apart = [other for other in (mask_dir, predictions and _absolute(predictions)) if other]
    scans = Scans.find(folder, searched, label_stem=label_stem, channel_suffixes=channel_suffixes, apart=apart)
    places, files, found, rows = scans.places, scans.files, {}, {}
    if table:
        rows = table.rows_by_name(folder, files)
        places = {name: places[name] for name in rows}
    elif labels:
        found = masks.find(places, files, scans.tree, mask_dir, label_stem, layout.suffixes)
    if table and table.subject_column:
        subjects = {name: row.subject for name, row in rows.items()}
    else:
        subjects = subjects_of(places, subject_pattern)
        if layout.rank == 2 and subject_pattern is None and subjects.keys() == set(subjects.values()):
            logging.warning(_SINGLE_SUBJECTS, folder, ", or subject_column" if table else "")
    return [
        Case(name, files[name][0], found.get(name), subjects[name], files[name][1:], rows[name].label if rows else None)
        for name in sorted(places)
    ]


def _indexed(
    path: Path, labels: Labels | None, channel_columns: Sequence[str] | None, subject_pattern: str | None
) -> list[Case]:
    classes = labels and labels.classes
    rows = index.read(path, channel_columns=channel_columns, masks=bool(labels and not classes), classes=classes)
    if subject_pattern is not None and any(row.subject for row in rows):
        raise UserError(
            f"subject_pattern: {path} has a column of subjects, which says whose a scan is; remove the key."
        )
    places = {row.name: Place("", row.name) for row in rows}
    guessed = {} if rows[0].subject else subjects_of(places, subject_pattern)
    return sorted(
        (
            Case(
                row.name,
                row.images[0],
                row.mask,
                row.subject or guessed[row.name],
                row.images[1:],
                row.label,
                row.where,
                row.columns,
            )
            for row in rows
        ),
        key=lambda case: case.name,
    )


def _check_is_folder(folder: Path, dataset_name: str) -> None:
    if archives.contains(folder):
        raise UserError(f'dataset_name: {folder} is an archive, expected "medmnist", received {dataset_name!r}.')
    if folder.is_file() and folder.suffix.lower() == index.SUFFIX:
        raise UserError(f'dataset_name: {folder} is a table, expected "index", received {dataset_name!r}.')


def _archived(part: archives.Part, labels: Labels | None, subject_pattern: str | None) -> list[Case]:
    paths = {f"{part.name}_{path.name}": path for path in part.paths()}
    subjects = part.subjects() if subject_pattern is None else None
    if subjects is None:
        subjects = subjects_of({name: Place("", name) for name in paths}, subject_pattern).values()
    found: Sequence[int | None] = part.labels() if labels else [None] * len(paths)
    if labels and labels.classes:
        found = [labels.classes.of(label, str(path)) for label, path in zip(found, paths.values(), strict=True)]
    return [
        Case(name, path, None, subject, label=label)
        for (name, path), subject, label in zip(paths.items(), subjects, found, strict=True)
    ]


def _absolute(folder: str | Path) -> Path:
    """Return "~/scans/" as "/home/me/scans"; a symbolic link keeps its own name, and so its own labels."""
    return Path(os.path.abspath(as_path(folder)))
