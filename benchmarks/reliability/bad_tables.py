"""Tables of labels, of cases and of subjects with every defect that a spreadsheet, a script or a copy makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Which file, the experiment that reads it, and the columns of the file, the label and the subject.
TABLES = {"photos.csv": ("classify", "image", "grade"), "index.csv": ("index", "image", "label")}
Change = Callable[[bytes, str, str], bytes]
DEFECTS: dict[str, Change] = {
    "empty": lambda text, file, label: b"",
    "only the columns": lambda text, file, label: text.split(b"\n")[0] + b"\n",
    "no line of columns": lambda text, file, label: text.split(b"\n", 1)[1],
    "binary": lambda text, file, label: os.urandom(0) + bytes(range(256)) * 4,
    "UTF-16": lambda text, file, label: text.decode().encode("utf-16"),
    "zeros": lambda text, file, label: bytes(1000),
    "NUL in a cell": lambda text, file, label: text.replace(b"m3", b"m\0003"),
    "cut off": lambda text, file, label: text[: len(text) * 2 // 3 - 3],
    "an open quote": lambda text, file, label: text.replace(b"m3", b'"m3'),
    "semicolons": lambda text, file, label: text.replace(b",", b";"),
    "no column of files": lambda text, file, label: text.replace(file.encode(), b"other", 1),
    "no column of labels": lambda text, file, label: text.replace(label.encode(), b"other", 1),
    "no column of subjects": lambda text, file, label: text.replace(b"subject", b"other", 1),
    "a column twice": lambda text, file, label: text.replace(b"subject", file.encode(), 1),
    "a cell too many": lambda text, file, label: text.replace(b"m3", b"m3,x,y"),
    "a cell too few": lambda text, file, label: text.replace(b",m3", b""),
    "a row twice": lambda text, file, label: text + text.split(b"\n")[3] + b"\n",
    "a field of 1 MB": lambda text, file, label: text.replace(b"m3", b"x" * 1_000_000),
    "a file that is missing": lambda text, file, label: text.replace(b"03.", b"93."),
    "a file outside, absolute": lambda text, file, label: text.replace(b"p03", b"/etc/p03").replace(
        b"images/s03", b"/etc/s"
    ),
    "a file outside, relative": lambda text, file, label: text.replace(b"p03", b"../p03").replace(
        b"images/s03", b"../s"
    ),
    "an empty file name": lambda text, file, label: text.replace(b"p03.png", b"").replace(b"images/s03.nii.gz", b""),
    "a file that is a folder": lambda text, file, label: text.replace(b"p03.png", b".").replace(
        b"images/s03.nii.gz", b"images"
    ),
    "a name with NUL": lambda text, file, label: text.replace(b"p03", b"p\0003").replace(b"images/s03", b"s\0"),
    "a name of 5,000 characters": lambda text, file, label: text.replace(b"p03", b"p" * 5000).replace(
        b"images/s03", b"p" * 5000
    ),
}
LABELS = ("", "one", "-1", "1.5", "2", "1e999", "nan", "9" * 30, "9" * 5000, "0x1", "=1+1", "1,0", "true", "\u0661")
PASSES = {"no column of subjects", "a column twice", "a row twice", "a field of 1 MB", "a cell too few"}


def rows() -> Iterator[tuple]:
    """Yield a row for each defect of each table."""
    for table, (experiment, file, label) in TABLES.items():
        line = ("finetune", f"{experiment}.json")
        mentions = [table, "row", f"{file}_column", f"{label}_column", "s03", "p03", "p" * 40]
        for what, change in DEFECTS.items():

            def defect(table=table, change=change, file=file, label=label) -> None:
                path = Path(table)
                path.write_bytes(change(path.read_bytes(), file, label))

            # The columns of an index are seen by what is in them.
            passes = what in PASSES or (table == "index.csv" and what == "no column of files")
            yield f"{table}: {what}", defect, line, mentions, passes
        for value in LABELS:

            def other(table=table, label=label, value=value) -> None:
                lines = Path(table).read_text().splitlines()
                place = lines[0].split(",").index(label)
                cells = lines[4].split(",")
                cells[place] = value
                Path(table).write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:]]) + "\n")

            # Without a label a case of an index is none for training; other digits are digits.
            passes = (value == "" and table == "index.csv") or value in ("1,0", "\u0661")
            yield f"{table}: label {value[:20]!r}", other, line, mentions, passes
        for what, special in SPECIAL.items():

            def replaced(table=table, special=special) -> None:
                os.remove(table)
                special(table)

            yield f"{table}: {what}", replaced, line, [table], False


SPECIAL: dict[str, Callable[[str], None]] = {
    "a folder": os.mkdir,
    "a fifo": os.mkfifo,
    "a dangling link": lambda path: os.symlink("nothing", path),
    "a link to itself": lambda path: os.symlink(path, path),
    "/dev/zero": lambda path: os.symlink("/dev/zero", path),
    "removed": lambda path: None,
}
