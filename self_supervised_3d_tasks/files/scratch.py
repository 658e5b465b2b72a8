"""What lies in temporary files: arrays that may be larger than the memory, and what libraries leave there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.files.leftovers import owned_name, remove_leftovers

MEMORY_LIMIT = 2**30  # bytes
FOLDER_PREFIX = "ss3d-"


@contextlib.contextmanager
def scratch(shape: Sequence[int], limit: int = MEMORY_LIMIT) -> Iterator[np.ndarray]:
    """Yield zeros ``shape``, float32; above ``limit`` bytes in a temporary file, which is gone when the block ends.

    The file lies where ``TMPDIR`` says. The kernel moves its pages between memory and disk as there is room.

    Raises:
        OSError: There is no room for it on that disk; ``filename`` is the folder.
    """
    size = 4 * int(np.prod(shape, dtype=np.int64))
    if size <= limit:
        yield np.zeros(shape, np.float32)
        return
    with tempfile.TemporaryFile(prefix=FOLDER_PREFIX) as file:
        try:
            # A disk that is full only later ends the process at the next number that is written into the array.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            error.filename = tempfile.gettempdir()
            raise
        yield np.memmap(file, np.float32, "w+", shape=tuple(shape))


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Give temporary files of this process a folder of their own in ``TMPDIR``, gone when the block ends.

    TensorFlow writes every Python function that it compiles into a file there and deletes it when the process ends,
    which a killed one does not do. Folders of dead processes are removed at the start.
    """
    place = tempfile.gettempdir()
    remove_leftovers(Path(place), FOLDER_PREFIX)
    before, folder = tempfile.tempdir, os.path.join(place, owned_name(FOLDER_PREFIX))
    os.mkdir(folder, 0o700)
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
