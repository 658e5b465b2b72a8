"""What becomes of scans that cannot be used: they stop a run, or are skipped and remembered."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from absl import logging

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.errors import UserError

MAX_REPORTED = 10


@dataclass
class BadFiles:
    """The scans of a part of a run that cannot be used.

    Args:
        skip: Whether they are left out with a warning; else they are an error.
        part: What messages call the cases, such as "validation"; empty where they are all that there are.

    Attributes:
        skipped: ``{"case": name, "reason": message}`` of those that were left out.
    """

    skip: bool
    part: str = ""
    skipped: list[dict[str, str]] = field(default_factory=list)

    def skip_case(self, case: Case, reason: str) -> None:
        """Warn that a case is left out, and remember it."""
        logging.warning("Skipped %s: %s", case.name, reason)
        self.skipped.append({"case": case.name, "reason": reason})

    def good(self, cases: Collection[Case], results: Iterable[Any], *, max_errors: int) -> dict[Case, Any]:
        """Return the results that are no errors.

        Args:
            cases: The cases.
            results: What came of each of them, or a UserError.
            max_errors: How many errors are looked for before the run stops.

        Raises:
            UserError: There is an error, and it is not skipped; or nothing else is left.
        """
        good, errors = {}, []
        for case, result in zip(cases, results, strict=True):
            if not isinstance(result, UserError):
                good[case] = result
                continue
            errors.append(str(result))
            if self.skip:
                self.skip_case(case, str(result))
            elif len(errors) == max_errors:
                break
        if errors and not self.skip:
            raise UserError("\n".join(errors))
        if not good:
            raise UserError("\n".join([self._nothing_left(len(cases)), *errors[:MAX_REPORTED]]))
        return good

    def _nothing_left(self, number: int) -> str:
        if not self.part:
            return f"None of {number} scans can be used."
        which = f"The only {self.part} scan cannot" if number == 1 else f"None of the {number} {self.part} scans can"
        return f"{which} be used. Repair what is named here, or remove it, so that the scans are split anew."
