"""The experiment files that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from self_supervised_3d_tasks.commands import example
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_file_is_listed_on_one_line_and_bases_are_not(capsys):
    example.execute()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(example.examples())
    assert len(lines) == 129
    assert max(map(len, lines)) <= 160
    assert "cpc_demo                                     train: cpc, nifti, demo_data/images" in lines


@pytest.mark.parametrize("name", ["cpc_demo", "cpc_demo.json"])
def test_a_file_is_written_with_the_keys_of_its_bases(capsys, name):
    example.execute(name)
    assert capsys.readouterr().out == "cpc_demo.json\n"
    assert not {"base", "$schema"} & json.loads(Path("cpc_demo.json").read_text()).keys()
    expected = load_experiment("train", ROOT / "configs_json" / "cpc_demo.json")
    assert load_experiment("train", "cpc_demo.json").model_dump() == expected.model_dump()


def test_a_finetuning_lies_in_a_folder_of_its_own():
    example.execute("finetune/cpc_demo")
    example.execute("cpc_demo")
    assert json.loads(Path("finetune/cpc_demo.json").read_text())["model_checkpoint"] == "runs/cpc_demo"


def test_nothing_is_written_over():
    Path("cpc_demo.json").write_text("mine")
    with pytest.raises(UserError, match=r"^cpc_demo\.json: already exists and is left as it is"):
        example.execute("cpc_demo")
    assert Path("cpc_demo.json").read_text() == "mine"


def test_an_unknown_name_comes_with_the_nearest():
    with pytest.raises(UserError, match=r"^no example is called 'cpc_dem'\. Did you mean 'cpc_demo'\?"):
        example.execute("cpc_dem")
