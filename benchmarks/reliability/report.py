"""The table of what was tried, as Markdown."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.reliability.trials import Outcome

LISTED = 5  # of each kind
PREAMBLE = """\
`make torture` tries to break every command, on scans of 16³ voxels, and writes this page. *Survived*: the right result,
or one message that names the file, row or key and exit code 2; after a kill, a signal or a full disk, the resumed run
has the weights, tables and masks of an undisturbed one, bit for bit. *Lost*: a traceback, a hang, an abort, a wrong or
half-written result, or a message that names nothing."""
PACKAGES = ("self_supervised_3d_tasks", "keras", "tensorflow", "numpy")


def markdown(outcomes: Sequence[Outcome], *, part: str, seed: int, seconds: float) -> str:
    """Return the page: a row per kind, and some of what was lost."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    lines = [
        "# Reliability",
        "",
        *PREAMBLE.splitlines(),
        "",
        "| kind | tried | survived | lost | processor s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in [*kinds, "all"]:
        of_kind = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        lost = sum(outcome.lost is not None for outcome in of_kind)
        used = sum(outcome.seconds for outcome in of_kind)
        lines.append(f"| {kind} | {len(of_kind)} | {len(of_kind) - lost} | {lost} | {used:.0f} |")
    today = datetime.now(UTC).date()
    lines += [
        "",
        f"{today}, seed {seed}, {part}, {seconds / 60:.0f} minutes; Python {platform.python_version()}, {versions}.",
    ]
    if any(outcome.lost for outcome in outcomes):
        lines += ["", f"## Lost (at most {LISTED} of each kind)", ""]
        for kind in kinds:
            found = [outcome for outcome in outcomes if outcome.kind == kind and outcome.lost]
            lines += [f"* {kind}: {outcome.name}: {_short(outcome.lost)}" for outcome in found[:LISTED]]
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:160]
