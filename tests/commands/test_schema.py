"""The schemas that editors read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from self_supervised_3d_tasks.commands import schema

SCHEMAS = Path(__file__).resolve().parents[2] / "configs_json" / "schema"


def test_the_schemas_of_both_commands_are_written(tmp_path, capsys):
    schema.execute(str(tmp_path / "new"))
    assert len(capsys.readouterr().out.splitlines()) == 2
    for name in ("train.json", "finetune.json"):
        assert (tmp_path / "new" / name).read_text() == (SCHEMAS / name).read_text()


@pytest.mark.parametrize("name", ["train", "finetune"])
def test_base_is_a_name_or_a_list_and_no_key_is_required(name):
    found = json.loads((SCHEMAS / f"{name}.json").read_text())
    assert [kind["type"] for kind in found["properties"]["base"]["anyOf"]] == ["string", "array"]
    assert "required" not in found


@pytest.mark.parametrize("name", ["train", "finetune"])
def test_every_key_is_explained(name):
    keys = json.loads((SCHEMAS / f"{name}.json").read_text())["properties"]
    assert [key for key, value in keys.items() if not value.get("description")] == ["$schema"]
    assert keys["lr"]["description"].startswith("Learning rate")
    assert "cpc: Width of" in keys["code_size"]["description"]
