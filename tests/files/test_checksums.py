from __future__ import annotations

import hashlib

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files import checksums


def test_checksum_file_is_that_of_sha256sum(tmp_path):
    file = tmp_path / "encoder.keras"
    file.write_bytes(b"abc")
    sidecar = checksums.write_checksum(file)
    assert sidecar.name == "encoder.keras.sha256"
    assert sidecar.read_text() == f"{hashlib.sha256(b'abc').hexdigest()}  encoder.keras\n"
    checksums.verify_checksum(file)


@pytest.mark.parametrize("content", [b"abd", b"", b"abcd"])
def test_a_changed_file_is_named(tmp_path, content):
    file = tmp_path / "encoder.keras"
    file.write_bytes(b"abc")
    checksums.write_checksum(file)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"encoder\.keras: damaged or changed"):
        checksums.verify_checksum(file)


def test_checksum_without_file_or_sidecar_is_an_error(tmp_path):
    file = tmp_path / "encoder.keras"
    file.write_bytes(b"abc")
    with pytest.raises(UserError, match=r"encoder\.keras\.sha256: no such file"):
        checksums.verify_checksum(file)
    checksums.checksum_path(file).write_text("")
    with pytest.raises(UserError, match="says nothing"):
        checksums.verify_checksum(file)
