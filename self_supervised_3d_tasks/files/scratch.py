"""Arrays that may be larger than the memory: beyond a size they lie in a file that nobody else sees."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

MEMORY_LIMIT = 2**30  # bytes


@contextlib.contextmanager
def scratch(shape: Sequence[int], limit: int = MEMORY_LIMIT) -> Iterator[np.ndarray]:
    """Yield zeros ``shape``, float32; above ``limit`` bytes in a temporary file, which is gone when the block ends.

    The file lies where ``TMPDIR`` says. The kernel moves its pages between memory and disk as there is room.
    """
    if 4 * np.prod(shape, dtype=np.int64) <= limit:
        yield np.zeros(shape, np.float32)
        return
    with tempfile.TemporaryFile(prefix="ss3d-") as file:
        yield np.memmap(file, np.float32, "w+", shape=tuple(shape))
