"""An index of a folder of scans: a CSV file with a row per case, for ``"dataset_name": "index"``.

It knows BIDS, Medical Decathlon, nnU-Net, BraTS, one folder per subject and flat folders, by the names of folders and
files; no file is opened. What is left out stands in a second file, ``<output>_left_out.csv``, with the reason.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from absl import logging
from pydantic import BaseModel, ConfigDict, Field

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.folders import masks, naming, trees
from self_supervised_3d_tasks.data.folders.subjects import subjects_of
from self_supervised_3d_tasks.data.folders.trees import Place, Tree
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.tables import encode_table

SOURCE = "FOLDER"
IMAGE = "image"
_NUMBERED = re.compile(r"^(.+)_([0-9]{4})$")
# Folders of BIDS whose scans are series over time, directions or coils: no training image as they are.
_SERIES = frozenset("func dwi fmap perf eeg ieeg meg beh micr nirs motion".split())


class Options(BaseModel):
    """What the names do not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: str = Field("", description="kinds that are channels, as t1,t1ce; default: those that most cases have")
    label_dir: str = Field("", description="folder of masks, where its name does not say it")
    label_stem: str = Field("", description="what the name of a mask has more than its scan's, as _lesion")
    subject_pattern: str = Field("", description="regular expression with one group, the subject, for name or path")


def prepare(source: Path, output: Path, options: Options) -> None:
    """Write an index of a folder, and what it leaves out.

    Args:
        source: Folder, searched with its sub-folders.
        output: CSV file to make. The paths in it are relative to its folder.
        options: What the names do not say.

    Raises:
        UserError: There is no scan, no case has the channels, or ``output`` exists with another content.
    """
    source, output = (Path(os.path.abspath(as_path(path))) for path in (source, output))
    if output.suffix.lower() != ".csv":
        raise UserError(f"{output}: expected the name of a CSV file, such as index.csv; choose another --output.")
    found = _Cases(source, options)
    rows = found.rows(output.parent)
    left_out = [(os.path.relpath(path, source), reason) for path, reason in sorted(found.left_out.items())]
    beside = output.with_name(f"{output.stem}_left_out.csv")
    tables = {beside: encode_table(("file", "why"), left_out), output: encode_table(rows[0], rows[1:])}
    with lock.beside(output, "wait until it has ended, or choose another --output"):
        for path, text in tables.items():
            if path.exists() and path.read_bytes() != text:
                raise UserError(f"{path}: exists with another content; remove it, or choose another --output.")
        for path, text in tables.items():
            atomic_write_bytes(path, text)
    named = ", ".join(f"{count} {reason}" for reason, count in Counter(reason for _, reason in left_out).most_common())
    logging.info("%s: %s", output, found.summary(rows))
    if left_out:
        logging.info("%s: left out: %s", beside, named)


class _Cases:
    """The cases of a folder: each a file per channel and perhaps a mask, and the files that belong to none."""

    def __init__(self, source: Path, options: Options) -> None:
        self.options = options
        tree = trees.walk(source, formats.volume_suffixes())
        if not tree.files:
            tree = trees.walk(source, formats.suffixes())
        if not tree.files:
            raise UserError(f"{source}: holds no {' or '.join(formats.suffixes())} files. Check the path.")
        self.left_out = {path: reason for path, reason in tree.left_out if reason != trees.MASKS}
        beside = naming.masks_beside(tree.files)
        if options.label_stem:
            ends = (place for place in tree.files if place.stem.endswith(options.label_stem))
            beside |= dict.fromkeys(ends, options.label_stem)
        scans = {place: path for place, path in tree.files.items() if place not in beside}
        self.cases = self._with_channels(_by_case(scans))
        self.names = dict(zip(trees.unique_names(list(self.cases)), self.cases, strict=True))
        self.masks = self._beside({place: (ending, tree.files[place]) for place, ending in beside.items()})
        in_folders = self._in_folders(tree)
        self.left_out |= {path: "second masks" for name, path in self.masks.items() if name in in_folders}
        self.masks |= in_folders

    def rows(self, folder: Path) -> list[list[str]]:
        """Return the header and a row per case, with paths relative to ``folder``."""
        subjects = subjects_of(self.names, self.options.subject_pattern or None)
        rows = [["id", "subject", "session", *self.channels, "mask"]]
        for name, place in sorted(self.names.items()):
            files = [self.cases[place][kind] for kind in self.channels]
            mask = self.masks.get(name)
            session = naming.session_of("/".join(filter(None, place)))
            paths = [os.path.relpath(path, folder) for path in files]
            rows.append([name, subjects[name], session, *paths, os.path.relpath(mask, folder) if mask else ""])
        return rows

    def summary(self, rows: list[list[str]]) -> str:
        """Return what the index holds, in a few words."""
        subjects = len({row[1] for row in rows[1:]})
        return (
            f"{len(rows) - 1} cases of {subjects} subjects, {len(self.masks)} with a mask; channels "
            f"{', '.join(self.channels)}"
        )

    def _with_channels(self, cases: Mapping[Place, Mapping[str, list[Path]]]) -> dict[Place, dict[str, Path]]:
        """Keep the cases that have all channels; the channels are those that are asked for, or that most cases have."""
        asked = [kind.strip() for kind in self.options.channels.split(",") if kind.strip()]
        still = {place: kinds for place, kinds in cases.items() if not _SERIES & set(place.parts)} or cases
        if asked:
            self.channels, still = asked, cases
        else:
            sets = Counter(frozenset(kinds) for kinds in still.values())
            most = max(sets, key=lambda kinds: (sets[kinds], len(kinds), sorted(kinds)))
            self.channels = sorted(most, key=naming.order_of_kind)
        found = {}
        for place, kinds in cases.items():
            lacking = [kind for kind in self.channels if kind not in kinds]
            if place in still and not lacking:
                found[place] = {kind: kinds[kind][0] for kind in self.channels}
            for kind, (first, *others) in kinds.items():
                if place not in still:
                    self.left_out[first] = f"scans in a folder {next(part for part in place.parts if part in _SERIES)}"
                elif kind not in self.channels:
                    self.left_out[first] = f"scans of another kind ({kind})"
                elif lacking:
                    self.left_out[first] = f"scans of cases without {' and '.join(lacking)}"
                self.left_out |= dict.fromkeys(others, f"second files of one kind ({kind})")
        if not found:
            kinds = sorted({kind for names in cases.values() for kind in names}, key=naming.order_of_kind)
            raise UserError(
                f"--channels: no case has {', '.join(self.channels)}; there are {', '.join(kinds)}. Choose some."
            )
        return found

    def _beside(self, beside: Mapping[Place, tuple[str, Path]]) -> dict[str, Path]:
        """Return the masks beside their scans by the name of the case: they begin as the case or one of its files."""
        owners: dict[Place, str] = {}
        in_folder: dict[str, list[str]] = defaultdict(list)
        for name, place in self.names.items():
            in_folder[place.folder].append(name)
            stems = [place.stem, *(formats.stem_of(path) for path in self.cases[place].values())]
            owners |= {Place(place.folder, stem): name for stem in stems}
        found: dict[str, Path] = {}
        for place, (ending, path) in beside.items():
            base = naming.split_mask(place.stem)[0]
            if self.options.label_stem and place.stem.endswith(self.options.label_stem):
                base = place.stem.removesuffix(self.options.label_stem)
            name = owners.get(Place(place.folder, base))
            if name is None and not base and len(in_folder[place.folder]) == 1:
                name = in_folder[place.folder][0]
            if name is None:
                self.left_out[path] = f"masks ({ending}) of no case"
            elif name in found:
                self.left_out[path] = f"second masks ({ending})"
            else:
                found[name] = path
        return found

    def _in_folders(self, tree: Tree) -> dict[str, Path]:
        """Return the masks in folders of their own."""
        folders = dict(tree.mask_folders)
        if self.options.label_dir:
            folders = {tree.root: Path(os.path.abspath(as_path(self.options.label_dir)))}
        elif not folders:
            beside = [tree.root.with_name(name) for name in naming.mask_folders_of(tree.root.name)]
            folders = {tree.root: next(filter(Path.is_dir, beside))} if any(map(Path.is_dir, beside)) else {}
        files = {name: list(self.cases[place].values()) for name, place in self.names.items()}
        found: dict[str, Path] = {}
        for scans, folder in folders.items():
            below, stem = os.path.relpath(scans, tree.root), self.options.label_stem
            found |= masks.in_folder(self.names, files, below, folder, stem, formats.suffixes())
            others = trees.walk(folder, formats.suffixes())
            self.left_out |= dict(others.left_out)
            used = set(found.values())
            self.left_out |= {path: "masks of no case" for path in others.files.values() if path not in used}
        return found


def _by_case(files: Mapping[Place, Path]) -> dict[Place, dict[str, list[Path]]]:
    """Return the files of each kind of each case."""
    numbered = _numbered_folders(files)
    cases: dict[Place, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for place, path in files.items():
        match = _NUMBERED.match(place.stem)
        if place.folder in numbered and match:
            base, kind = match[1], f"channel_{match[2]}"
        else:
            base, kind = naming.split_kind(place.stem)
            kind = kind.lstrip("-_. ")
            kind = kind if place.stem.startswith("sub-") else kind.lower()
        cases[Place(place.folder, base)][kind or IMAGE].append(path)
    return cases


def _numbered_folders(files: Iterable[Place]) -> set[str]:
    """Return the folders where ``_0000`` numbers channels, as in nnU-Net: all cases have the same, from 0 on."""
    stems: dict[str, list[str]] = defaultdict(list)
    for place in files:
        stems[place.folder].append(place.stem)
    found = set()
    for folder, names in stems.items():
        matches = [match for match in map(_NUMBERED.match, names) if match]
        channels: dict[str, set[int]] = defaultdict(set)
        for match in matches:
            channels[match[1]].add(int(match[2]))
        sets = list(channels.values())
        alike = all(numbers == set(range(len(numbers))) for numbers in sets) and len(set(map(len, sets))) == 1
        if len(matches) == len(names) and alike and (len(sets) > 1 or folder.rpartition("/")[2].startswith("images")):
            found.add(folder)
    return found
