from __future__ import annotations

import pytest

from self_supervised_3d_tasks.files import atomic
from self_supervised_3d_tasks.files.atomic import atomic_write, atomic_write_files


def test_atomic_write_replaces_the_file_and_keeps_its_suffixes(tmp_path):
    target = tmp_path / "new" / "mask.nii.gz"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.name.endswith(".nii.gz") and temporary != target
            temporary.write_text(text)
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "weights.h5"
    target.write_text("old")

    def write():
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise error

    pytest.raises(error, write)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_several_files_come_at_once_and_the_one_that_names_them_last(tmp_path, monkeypatch):
    target, order, replace = tmp_path / "new" / "mask.mhd", [], atomic.os.replace
    monkeypatch.setattr(atomic.os, "replace", lambda source, to: (order.append(to.name), replace(source, to)))
    for text in ("first", "second"):
        with atomic_write_files(target) as temporary:
            assert temporary.name == target.name
            temporary.write_text(text)
            temporary.with_name("mask.zraw").write_text(f"voxels of the {text}")
            assert not target.exists() or target.read_text() == "first"
        assert target.read_text() == text
        assert target.with_name("mask.zraw").read_text() == f"voxels of the {text}"
    assert order == ["mask.zraw", "mask.mhd"] * 2
    assert sorted(path.name for path in target.parent.iterdir()) == ["mask.mhd", "mask.zraw"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_files_and_nothing_else(tmp_path, error):
    target = tmp_path / "mask.mhd"
    target.write_text("old")

    def write():
        with atomic_write_files(target) as temporary:
            temporary.with_name("mask.zraw").write_text("half")
            raise error

    pytest.raises(error, write)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_new_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_write(tmp_path / "atomic") as temporary:
        temporary.touch()
    with atomic_write_files(tmp_path / "files") as temporary:
        temporary.touch()
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode == (tmp_path / "files").stat().st_mode
