"""What a training asks of the devices that it is spread over."""

import contextlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """One device, and what other kinds of distribution change of it.

    Attributes:
        devices: Number of devices that a batch is divided over.
    """

    devices: int = 1

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which models are built, restored, compiled and fit."""
        return contextlib.nullcontext()
