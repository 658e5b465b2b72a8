from __future__ import annotations

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.json_files import read_json, write_json


def test_json_is_indented_and_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, {"lr": 0.5})
    assert path.read_text() == '{\n  "lr": 0.5\n}\n'
    assert read_json(path) == {"lr": 0.5}
    path.write_text('{"lr": ')
    with pytest.raises(UserError, match=r"config\.json: expected a JSON file, but not valid JSON at line 1, column 8"):
        read_json(path)
    with pytest.raises(UserError, match=r"split\.json: no such file"):
        read_json(tmp_path / "split.json")
