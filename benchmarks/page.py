"""The page of all measurements: sections, of which a run replaces those that it measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks import machine

TITLE = "# Speed and memory"
INTRODUCTION = """\
`make bench` measures what is below and writes this page; each section says when and on what it was measured. Every
measurement runs in a process of its own. Each number is one measurement; only ratios of what was measured in turn
travel between machines. `python -m benchmarks --subject NAME` measures one subject alone. XLA is left to Keras
(`jit_compile="auto"` leaves it off on a CPU, where it makes 3D convolutions several times slower)."""


def stamped(text: str, seconds: float) -> str:
    """Return a section's text with a line that says when it was measured, in what time and on what."""
    return f"{text}\n\n{datetime.now(UTC).date()}, {seconds / 60:.1f} minutes: {machine.description()}."


def updated(page: str, measured: Mapping[str, str], order: Sequence[str]) -> str:
    """Return a page with new sections in place of old ones.

    Args:
        page: The page so far, which may be empty.
        measured: The new sections by title.
        order: The titles of all sections; what else the page has is dropped.
    """
    sections = split(page) | dict(measured)
    parts = [f"## {title}\n\n{sections[title].strip()}" for title in order if title in sections]
    return "\n\n".join([TITLE, INTRODUCTION, *parts]) + "\n"


def split(page: str) -> dict[str, str]:
    """Return the sections of a page by title."""
    _, *parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))
