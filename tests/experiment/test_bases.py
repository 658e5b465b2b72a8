"""Files that build on others: what wins, and what each mistake says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import bases
from self_supervised_3d_tasks.experiment.load import load_experiment

TRAIN = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file below the current folder and return its relative path."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, **keys) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(keys))
        return path

    return call


def test_later_keys_win_and_the_file_itself_is_last(write):
    write("bases/one.json", lr=1.0, epochs=1, batch_size=1, label_map={"1": 2})
    write("bases/two.json", epochs=2, batch_size=2, label_map={"3": 0})
    path = write("own.json", base=["bases/one.json", "bases/two.json"], batch_size=3)
    values, names = bases.read(path)
    assert values == {"lr": 1.0, "epochs": 2, "batch_size": 3, "label_map": {"3": 0}}
    assert names == ["bases/one.json", "bases/two.json"]


def test_bases_have_bases_relative_to_themselves_and_may_share_one(write):
    write("shared/root.json", lr=1.0, epochs=1)
    write("bases/left.json", base="../shared/root.json", epochs=2)
    write("bases/right.json", base="../shared/root.json", batch_size=4)
    path = write("own.json", base=["bases/left.json", "bases/right.json"])
    values, names = bases.read(path)
    # The second base has all keys of its own base, so that these come after those of the first.
    assert values == {"lr": 1.0, "epochs": 1, "batch_size": 4}
    assert names == ["bases/left.json", "shared/root.json", "bases/right.json"]


def test_a_file_without_a_base_is_itself(write):
    assert bases.read(write("own.json", **TRAIN)) == (TRAIN, [])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {"base": "b.json"}, "b": {"base": "a.json"}}, r"a\.json → b\.json → a\.json: no file can be its own"),
        ({"a": {"base": "a.json"}}, r"a\.json → a\.json: no file can be its own base; remove"),
        ({"a": {"base": ["b.json"]}, "b": {"base": "c.json"}}, r"a\.json → b\.json → c\.json: no such experiment file"),
        ({"a": {"base": "b.json"}, "b": [1]}, r"a\.json → b\.json: expected a JSON object of keys, found list"),
        ({"a": {"base": 3}}, r"a\.json: base: expected the name of a file or a list of names, received 3"),
        ({"a": {"base": ["a.json", None]}}, r"a\.json: base: expected .*, received \['a\.json', None\]"),
        ({"a": {"base": "."}}, r"a\.json → \.: is a folder, expected a file"),
    ],
)
def test_a_mistake_names_the_files_that_lead_to_it(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"^{message}") as error:
        bases.read(Path("a.json"))
    assert "\n" not in str(error.value)


def test_a_broken_base_is_named(write):
    path = write("a.json", base="b.json")
    Path("b.json").write_text("{")
    with pytest.raises(UserError, match=r"^a\.json → b\.json: .*not valid JSON at line 1, column 2"):
        bases.read(path)


def test_the_resolved_experiment_has_no_base_and_overrides_come_last(write):
    write("bases/nifti.json", **TRAIN, epochs=2)
    path = write("own.json", base="bases/nifti.json", batch_size=4)
    resolved = load_experiment("train", path, ["epochs=7"]).model_dump()
    assert (resolved["epochs"], resolved["batch_size"], resolved["data_dim"]) == (7, 4, 32)
    assert "base" not in resolved


def test_a_wrong_key_names_the_file_and_its_bases(write):
    write("bases/nifti.json", **TRAIN, epoch=2)
    with pytest.raises(UserError, match=r"^own\.json \(with bases/nifti\.json\): epoch: unknown key.*'epochs'"):
        load_experiment("train", write("own.json", base="bases/nifti.json"))
