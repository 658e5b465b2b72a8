"""Scans of a folder that cannot be predicted: they do not stop the others, and are told at the end."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from absl import logging

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.errors import ScansFailed, UserError

_OF_TRAINING = re.compile(r',?(?: or)? set on_bad_file to "skip"')  # a remedy that has no effect here


@dataclass(frozen=True)
class Failures:
    """What went wrong so far.

    Attributes:
        many: Whether there are other scans to go on with; if not, a mistake is raised at once.
        what: What could not be done with the scans, for the message.
        reasons: File and reason of each scan.
    """

    many: bool
    what: str = "predicted"
    reasons: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def of(self, case: Case) -> Iterator[None]:
        """Keep the `UserError` of a block that works on one scan."""
        try:
            yield
        except UserError as error:
            text = _OF_TRAINING.sub("", str(error))
            if not self.many:
                raise UserError(text) from error
            named = any(str(image) in text for image in case.images)
            self.reasons.append(text if named else f"{case.image}: {text}")
            logging.warning("left out: %s", self.reasons[-1])

    def tell(self) -> None:
        """Raise `ScansFailed` if there are any."""
        if self.reasons:
            raise ScansFailed(self.reasons, self.what)
