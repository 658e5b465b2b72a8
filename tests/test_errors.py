"""What users are told when the system refuses."""

from __future__ import annotations

import errno
import os

import pytest
import tensorflow as tf

from self_supervised_3d_tasks.errors import UserError, describe, is_of_the_system, refused


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "x", "a/b"), "a/b: no permission; change its permissions, or choose another"),
        (OSError(errno.ENOSPC, "x"), "no space is left on this disk; make room, then go on with --resume"),
        (OSError(errno.EROFS, "x", "runs"), "runs: this file system can only be read"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "b: Invalid cross-device link"),
        (OSError(errno.EIO, "x", b"a\xff"), "a\udcff: the disk failed"),
        (OSError(errno.EBADF, "Bad file descriptor", 7), "Bad file descriptor"),
        (MemoryError(), "not enough memory; "),
        (MemoryError("Unable to allocate 7 EiB"), "Unable to allocate 7 EiB: not enough memory; "),
        (OSError("file write failed: filename = 'a.h5', errno = 28, x"), "a.h5: no space is left on this disk"),
        (RuntimeError("a/events; No space left on device [Op:Write]"), "no space is left on this disk"),
        (OSError("a picture\nof nothing"), "a picture of nothing"),
        (OSError(), "OSError"),
    ],
)
def test_the_system_is_quoted_with_file_cause_and_remedy(error, text):
    assert describe(error).startswith(text)
    assert "\n" not in describe(error)


def test_a_path_too_long_is_shown_by_its_end():
    path = "a" * 5000 + "/end"
    with pytest.raises(OSError) as raised:
        open(path)
    assert describe(raised.value).startswith("…aaa") and len(describe(raised.value)) < 300
    assert "/end: the name is longer than the file system takes; choose a shorter one" in describe(raised.value)


def test_a_real_refusal(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as raised:
        os.listdir(tmp_path / "file" / "below")
    assert describe(raised.value).startswith(f"{tmp_path / 'file' / 'below'}: a part of this path is a file")


@pytest.mark.parametrize(
    ("error", "text", "message"),
    [
        (OSError(errno.EIO, "Input/output error", "/a/b.b2nd"), "/a/b.b2nd: the disk failed to read or write", None),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: no permission; change", None),
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left on this disk; make room", None),
        (MemoryError("Unable to allocate 7 GiB"), "Unable to allocate 7 GiB: not enough memory; ", None),
        (UserError("a: bad\nmore"), None, "a: bad\nmore"),
        (ZeroDivisionError("ours"), None, None),
    ],
)
def test_what_a_pipeline_makes_of_it_is_read_back(error, text, message):
    def read(_):
        raise error

    data = tf.data.Dataset.range(1).map(lambda step: tf.numpy_function(read, [step], tf.int64))
    with pytest.raises(tf.errors.OpError) as raised:
        list(data)
    assert refused(raised.value) == message
    assert is_of_the_system(raised.value) == (text is not None)
    assert text is None or describe(raised.value).startswith(text)
