"""What a header claims, compared with its file and with the memory before anything is allocated.

A header of a hundred bytes can claim terabytes, and a compressed file of a megabyte can hold a gigabyte of zeros.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from self_supervised_3d_tasks import machine
from self_supervised_3d_tasks.errors import UserError

DEFLATE = 1032
"""Bytes that a byte of a deflate stream (zlib, gzip, zip, PNG) gives at most."""
MOST_BEHIND = 2**20  # bytes behind the voxels, where some programs put notes
_DECODED_BYTES = 4  # of a voxel
_CHUNK, _ZLIB_OR_GZIP = 2**22, 47


def check(
    path: Path, shape: Sequence[int], itemsize: int, stored: int, *, ratio: int = 1, is_end: bool = False
) -> None:
    """Check that a file can hold the voxels that its header claims, and the memory too.

    Args:
        path: The scan.
        shape: Length of each axis.
        itemsize: Bytes of a voxel as it is stored.
        stored: Bytes of the file, or of its part, in which the voxels are.
        ratio: How many bytes of voxels a stored byte holds at most: 1, or of deflate `DEFLATE`.
        is_end: Whether nothing but a few notes may follow the voxels of a file that is not compressed.

    Raises:
        ValueError: The file is too small, or holds far more; what `volumes.readable` says of a damaged file fits.
        UserError: See `check_memory`.
    """
    claimed = math.prod(map(int, shape)) * itemsize  # numbers of numpy would overflow
    claim = f"its header claims {' × '.join(map(str, shape))} voxels, {machine.readable_bytes(claimed)}"
    if claimed > stored * ratio:
        at_most = f", which hold at most {machine.readable_bytes(stored * ratio)}" if ratio > 1 else ""
        raise ValueError(f"{claim}, but the file has {machine.readable_bytes(stored)} for them{at_most}")
    if is_end and stored - claimed > MOST_BEHIND:
        raise ValueError(f"{claim}, but the file has {machine.readable_bytes(stored)} for them")
    check_memory(path, shape)


def check_memory(path: Path, shape: Sequence[int]) -> None:
    """Raise `UserError` for a scan ``(*shape)`` that does not fit into the memory once it is decoded."""
    needed, there = math.prod(map(int, shape)) * _DECODED_BYTES, machine.memory_bytes()
    if needed > there:
        raise UserError(
            f"{path}: has {' × '.join(map(str, shape))} voxels, which take {machine.readable_bytes(needed)} of memory, "
            f"but there are {machine.readable_bytes(there)}. Crop or resample the scan, remove it, or set on_bad_file "
            'to "skip".'
        )


def inflate(file: BinaryIO, expected: int) -> bytes:
    """Return the first bytes that a zlib or gzip stream holds, once its checksum is known to be right.

    Args:
        file: Open at the beginning of the stream; of gzip, several members may follow each other.
        expected: How many bytes are returned, at most.

    Raises:
        ValueError: The stream ends too early, or goes on long after them: the rest is not decompressed.
        zlib.error: It is damaged.
    """
    content, most, pending = bytearray(), expected + MOST_BEHIND, b""
    while True:
        stream = zlib.decompressobj(_ZLIB_OR_GZIP)
        while not stream.eof:
            chunk = stream.unconsumed_tail or pending or file.read(_CHUNK)
            pending = b""
            if not chunk:
                raise ValueError("its compressed voxels end too early")
            content += stream.decompress(chunk, most + 1 - len(content))
            if len(content) > most:
                raise ValueError(
                    f"its header claims {machine.readable_bytes(expected)}, but it holds "
                    f"{machine.readable_bytes(MOST_BEHIND)} and more behind them"
                )
        pending = stream.unused_data.lstrip(b"\0")  # zeros fill up the blocks of a tape
        while not pending and (more := file.read(_CHUNK)):
            pending = more.lstrip(b"\0")
        if not pending:
            del content[expected:]
            return bytes(content)
