"""What the names of public datasets say: the kind of a file, the session, the folder of masks beside one of scans."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeVar

Pair = TypeVar("Pair", bound=tuple[str, str])

_WORDS = (
    "t1 t1w t1n t1c t1ce t1gd t2 t2w t2f t2star t2w-fs flair flairw pd pdw adc dwi swi ktrans hbv fa md cbf cbv ct cta "
    "cbct pet mra angio bold"
)
_MODALITY = re.compile(rf"(^|[-_. ])({'|'.join(_WORDS.split())})$", re.IGNORECASE)
_MASK = re.compile(
    r"(^|[-_. ])(seg|dseg|segmentation|mask|masks|label|labels|lbl|gt|roi|annotation|contour|contours)$", re.IGNORECASE
)
_SESSION = re.compile(
    r"(?:^|(?<=[-_/. ]))((?:ses|session|visit|tp|timepoint)[-_]?[a-z0-9]+|(?:scan|study|exam)[-_]?[0-9]{1,2}"
    r"|baseline|follow-?up[0-9]*|(?:19|20)[0-9]{2}[-_]?[01][0-9][-_]?[0-3][0-9])(?=$|[-_/. ])",
    re.IGNORECASE,
)
# Entities of BIDS that tell the masks of one scan apart; they stand in no name of a scan.
_OF_MASKS = re.compile(r"_(?:label|desc|space)-[A-Za-z0-9]+")
BESIDE_SUBJECTS = ("derivatives", "sourcedata")
"""Folders of a BIDS dataset beside those of its subjects, which hold the same scans again in other forms."""


def split_kind(stem: str) -> tuple[str, str]:
    """Return what a stem says before the kind of the file, and the kind with its separator, or ``""``.

    ``sub-01_ses-2_T1w`` gives ``("sub-01_ses-2", "_T1w")``, ``x-t1c`` ``("x", "-t1c")``, ``T1`` ``("", "T1")``.
    """
    base, _, last = stem.rpartition("_")
    if stem.startswith("sub-") and base and "-" not in last:
        return base, f"_{last}"
    match = _MODALITY.search(stem)
    return (stem, "") if match is None else (stem[: match.start()], match[0])


def split_mask(stem: str) -> tuple[str, str]:
    """Return the stem of the scan, or what its files begin with, and the ending that makes it a mask, or ``""``."""
    match = _MASK.search(stem)
    if match is None:
        return stem, ""
    base = stem[: match.start()]
    return (_OF_MASKS.sub("", base) if stem.startswith("sub-") else base), match[0]


def session_of(place: str) -> str:
    """Return the session that a path names, such as ``ses-2`` or ``visit1``, or ``""``."""
    match = _SESSION.search(place)
    return match[1] if match else ""


def order_of_kind(kind: str) -> tuple[int, str]:
    """Return what kinds are sorted by: T1 before T2 before FLAIR, and by name where it is none of them."""
    words = _WORDS.split()
    return (words.index(kind.lower()) if kind.lower() in words else len(words), kind)


def looks_like_session(folder: str) -> bool:
    """Return whether a folder is called like a session, a day, or a kind of scans, and so not like a person."""
    return _SESSION.fullmatch(folder) is not None or folder.lower() in ("anat", "func", "mr", "mri", *_WORDS.split())


def mask_folders_of(folder: str) -> list[str]:
    """Return what the folder of masks beside a folder of scans may be called: ``imagesTr`` has ``labelsTr``."""
    found = [f"{folder}_labels"]
    if folder.lower().startswith("images"):
        found += [f"{word}{folder[len('images') :]}" for word in ("labels", "masks")]
    return found


def masks_beside(places: Iterable[Pair]) -> dict[Pair, str]:
    """Return which files look like masks beside their scans, and the ending that says so.

    Args:
        places: Folder and stem of each file.
    """
    places = list(places)
    split = {place: split_mask(place[1]) for place in places}
    found = {place: (base, ending) for place, (base, ending) in split.items() if ending}
    # The longest common beginning that a mask may have with a scan: "x" of "x_seg" is that of "x_t1" and of "x".
    # A mask that is called nothing else, as "mask", is that of its folder.
    bases = {
        (folder, start) for folder, stem in set(places) - found.keys() for start in ("", stem, split_kind(stem)[0])
    }
    return {place: ending for place, (base, ending) in found.items() if (place[0], base) in bases}


def kinds_of_one_case(places: Iterable[tuple[str, str]]) -> Counter[str]:
    """Return how many files there are of each kind, where some scan comes in several of them; else nothing.

    Args:
        places: Folder and stem of each file.
    """
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for folder, stem in places:
        base, kind = split_kind(stem)
        if kind:
            kinds[folder, base].append(kind)
    return (
        Counter(kind for found in kinds.values() for kind in found) if any(map(_several, kinds.values())) else Counter()
    )


def _several(kinds: list[str]) -> bool:
    return len(kinds) > 1
