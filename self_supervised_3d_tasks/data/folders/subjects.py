"""Whose a scan is, as far as patterns, folders and names tell, and names that look like one person's."""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from self_supervised_3d_tasks.data.folders import naming
from self_supervised_3d_tasks.data.folders.trees import Place
from self_supervised_3d_tasks.errors import UserError

_BIDS = re.compile(r"(?:^|(?<=[/_]))(sub-[A-Za-z0-9]+)(?=$|[/_.])")
_MOST_PER_FOLDER = 10
_MOST_FOLDERS = 5
_SIDES = "l|r|left|right|lh|rh|od|os"
_TIMES = "baseline|bl|follow-?up[0-9]*|fu[0-9]*|pre|post|test|retest"
# What may follow a person in a name, whatever the rest of the name is.
_PART = re.compile(
    rf"[-_. ]({_SIDES}|{_TIMES}|(ses|session|visit|tp|timepoint|run|acq|rec|scan|slice)[-_]?[a-z0-9]+)$", re.IGNORECASE
)
_NUMBER = re.compile(r"[-_. ][a-z]{0,3}([0-9]+)$", re.IGNORECASE)


def subjects_of(places: Mapping[str, Place], pattern: str | None = None) -> dict[str, str]:
    """Return the subject of each case.

    That is the group of the pattern; else ``sub-…``, wherever it stands in the path; else the name of the folder where
    there is one folder per subject; else the name of the case. Two people whom two folders call ``sub-01`` count as
    one, which wastes a little but never puts one person on two sides.

    Args:
        places: Where each case lies, by its name.
        pattern: Regular expression with one group, searched in the name and, where it does not match, in the path.

    Raises:
        UserError: The pattern has not one group, or does not match a case.
    """
    if pattern is not None:
        return _by_pattern(places, pattern)
    folders = _subject_folders(list(places.values()))
    if folders:
        number = len(set(folders.values()))
        logging.info(
            "%d folders are subjects, such as %r; subject_pattern can say otherwise.", number, min(folders.values())
        )
    found = {}
    for name, place in places.items():
        match = _BIDS.search(f"{place.folder}/{place.stem}") or _BIDS.search(name)
        found[name] = match[1] if match else folders.get(place, name)
    return found


def _by_pattern(places: Mapping[str, Place], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"subject_pattern: {pattern!r} is no regular expression ({error}).") from error
    if compiled.groups != 1:
        raise UserError(f"subject_pattern: expected one (group), {pattern!r} has {compiled.groups}.")
    found = {}
    for name, place in places.items():
        match = compiled.search(name) or compiled.search("/".join(filter(None, place)))
        if not match or match[1] is None:
            raise UserError(f"subject_pattern: {pattern!r} does not match the case {name!r}.")
        found[name] = match[1]
    return found


def _subject_folders(places: Sequence[Place]) -> dict[Place, str]:
    """Return the folder that is a person's for each place, where folders are people's.

    A folder is, if the names of its files begin with its own; or if every case has one, with a few cases in each.
    Folders that are called alike below several others, or like a session, are not.
    """
    own = {place: part for place in places for part in place.parts if _begins_with(place.stem, part)}
    if not _few_in_each(own, places):
        own = {}
    elif len(own) == len(places):
        return own
    parents: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for parts in {place.parts for place in places}:
        for depth, part in enumerate(parts):
            parents[part].add(parts[:depth])
    found = {}
    for place in places:
        for part in reversed(place.parts):
            if len(parents[part]) == 1 and not naming.looks_like_session(part):
                found[place] = part
                break
    return found | own if len(found) == len(places) and _few_in_each(found, places) else own


def _few_in_each(folders: Mapping[Place, str], places: Sequence[Place]) -> bool:
    return len(set(folders.values())) > 1 and len(places) <= _MOST_PER_FOLDER * len(set(folders.values()))


def _begins_with(stem: str, folder: str) -> bool:
    return stem.startswith(folder) and not stem[len(folder) : len(folder) + 1].isalnum()


def warn_of_lookalikes(parts: Iterable[Iterable[tuple[str, str]]]) -> bool:
    """Warn once of cases that look like one person's in several parts of a split, and return whether there are some.

    Args:
        parts: Name of each case of each part, and the stem of its file.
    """
    parts = [list(dict.fromkeys(part)) for part in parts]
    cases = [case for part in parts for case in part]
    persons = Counter(_by_number(_person(name)) for name, _ in cases)
    stems = Counter(stem for _, stem in cases)
    # A number counts the scans of a person, or else the people: then what is before it is most people's.
    few = {key for key, count in persons.items() if 1 < count <= max(2, len(cases) // 2)} if len(persons) > 1 else set()
    # One name in a few folders is a person's, as of a folder per modality; in many folders it is what every person has.
    few_stems = {stem for stem, count in stems.items() if 1 < count <= _MOST_FOLDERS and len(stems) > 2 * count}
    seen: list[dict[str, str]] = [{} for _ in parts]
    for part, found in zip(parts, seen, strict=True):
        for name, stem in part:
            person = _person(name)
            keys = {person, *({_by_number(person)} & few), *({stem} & few_stems)}
            found |= {key: name for key in keys if key not in found}
    pairs = {}
    for number, part in enumerate(seen):
        for other in seen[number + 1 :]:
            pairs |= {key: (part[key], other[key]) for key in part.keys() & other.keys() if part[key] != other[key]}
    if pairs:
        logging.warning(
            "%d names look like those of one person on two sides of the split, such as %s and %s. If they are, set "
            'subject_pattern, for example "^(.+)[_-][^_-]+$"; if not, nothing is to do.',
            len(pairs),
            *pairs[min(pairs)],
        )
    return bool(pairs)


@functools.lru_cache(maxsize=1 << 17)  # a sweep asks for the same names once per split
def _person(name: str) -> str:
    """Return a name without the kind of the file, sessions, runs and sides that it ends in."""
    stem = naming.split_kind(name)[0] or name
    while (match := _PART.search(stem)) and match.start():
        stem = stem[: match.start()]
    return stem


@functools.lru_cache(maxsize=1 << 17)
def _by_number(stem: str) -> str:
    """Return a stem without its last number, if what is left has one at least as long: ``p12`` of ``p12_01``."""
    match = _NUMBER.search(stem)
    if match is None:
        return stem
    longest = max(map(len, re.findall("[0-9]+", stem[: match.start()])), default=0)
    return stem[: match.start()] if longest >= len(match[1]) else stem
