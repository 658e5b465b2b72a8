"""Experiment files and ``--set`` that are no JSON, or more than one reading of it: one message with file and key."""

from __future__ import annotations

import json

import pytest

KEYS = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32, "number_channels": 1}
TEXT = json.dumps(KEYS)
DEEP = 100_000


def with_more(text: str) -> bytes:
    return (TEXT[:-1] + ", " + text + "}").encode()


def check(ended, *parts):
    assert (ended.code, ended.out) == (2, ""), ended
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and len(ended.err) < 1000, ended.err
    for part in parts:
        assert part in ended.err


BAD = {
    "twice": (with_more('"epochs": 1, "epochs": 77'), "epochs: this key is there twice"),
    "twice, escaped": (with_more('"epochs": 1, "\\u0065pochs": 77'), "epochs: this key is there twice"),
    "twice in a group": (with_more('"model_params": {"dropout": 0, "dropout": 1}'), "dropout: this key is there twice"),
    "Infinity": (with_more('"intensity_window": [-10, Infinity]'), "intensity_window: expected a finite number"),
    "-Infinity": (with_more('"intensity_window": [[-Infinity], 0]'), "intensity_window: expected a finite number"),
    "NaN": (with_more('"dropout": NaN'), "dropout: expected a finite number"),
    "too large": (with_more('"dropout": 1e999'), "dropout: expected a finite number"),
    "NaN alone": (b"NaN", "expected finite numbers"),
    "lists without end": (with_more('"data_dim": ' + "[" * DEEP + "]" * DEEP), "nested too deep"),
    "groups without end": (b'{"a": ' * DEEP + b"1" + b"}" * DEEP, "nested too deep"),
    "brackets that never close": (b"[" * DEEP, "nested too deep"),
    "many groups": (with_more('"x": ' + "[" * 50 + "]" * 50), "nested more than"),
    "many digits": (with_more('"epochs": ' + "7" * 5000), "a number of 5000 digits"),
    "long text": (with_more('"data_dir2": "' + "x" * 10**6 + '"'), "has 1000000 characters"),
    "long key": (with_more(f'"{"k" * 10**6}": 1'), "has 1000000 characters"),
    "long list": (with_more('"run_name": [' + "1, " * 10**5 + "1]"), "run_name"),
    "long list in a group": (with_more('"model_params": [' + "1, " * 10**5 + "1]"), "model_params: expected a group"),
    "long list of bases": (with_more('"base": [' + "1, " * 10**5 + "1]"), "base: expected the name of a file"),
    "latin-1": (with_more('"run_name": "M\u00fcller"').replace("\u00fc".encode(), b"\xfc"), "no UTF-8"),
    "utf-16": (TEXT.encode("utf-16"), "no UTF-8"),
    "binary": (bytes(range(256)), "byte 80 in line 2 is no UTF-8"),
    "NUL": (b"\0" * 100, "not valid JSON"),
    "empty": (b"", "not valid JSON at line 1, column 1"),
    "a list": (b"[]", "expected a JSON object of keys"),
    "a number": (b"1", "expected a JSON object of keys"),
    "two objects": (b"{} {}", "not valid JSON"),
    "a comment": (b"// mine\n{}", "not valid JSON at line 1"),
    "cut off": (TEXT[:40].encode(), "not valid JSON"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("as_base", [False, True])
def test_a_wrong_text_is_refused_with_file_and_key(name, as_base, run_command, tmp_path):
    content, part = BAD[name]
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    if as_base:
        (tmp_path / "mine.json").write_text('{"base": "wrong.json"}')
    check(run_command("train", tmp_path / "mine.json" if as_base else path, "--print_config"), "wrong.json", part)


SETTINGS = {
    "NaN": ("dropout=NaN", "finite number"),
    "Infinity in a list": ("intensity_window=[0, Infinity]", "finite number"),
    "nothing but dots": ("..=1", "a key without a name"),
    "too large": ("dropout=-1e999", "finite number"),
    "twice": ('model_params={"dropout": 0, "dropout": 0}', "dropout: this key is there twice"),
    "deep": ("data_dim=" + "[" * DEEP, "nested too deep"),
    "deep key": ("a." * DEEP + "b=1", "groups of keys"),
    "digits": ("epochs=" + "7" * 5000, "5000 digits"),
    "long text": ("data_dir=" + "x" * 10**5, "100000 characters"),
    "long key": ("k" * 10**5 + "=1", "100000 characters"),
    "no key": ("=1" * 10**5, "expected key=value"),
    "no value": ("x" * 10**5, "expected key=value"),
    "not a group": ("data_dir.x=1", "data_dir is not a group"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_setting_is_refused(name, run_command, tmp_path):
    item, part = SETTINGS[name]
    path = tmp_path / "train.json"
    path.write_text(TEXT)
    check(run_command("train", path, "--set", item, "--print_config"), part)


GOOD = {
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "line ends of Windows": json.dumps(KEYS, indent=1).replace("\n", "\r\n").encode(),
    "escapes": TEXT.replace("scans", "\\u0073cans").encode(),
}


@pytest.mark.parametrize("name", GOOD)
def test_other_forms_of_a_right_text_are_read(name, run_command, tmp_path):
    path = tmp_path / "train.json"
    path.write_bytes(GOOD[name])
    ended = run_command("train", path, "--print_config")
    assert ended.code == 0 and json.loads(ended.out)["data_dir"] == "scans"


def test_a_name_that_is_no_utf8_goes_through_an_experiment_as_letters(run_command, tmp_path):
    path = tmp_path / "train.json"
    path.write_text(TEXT.replace("scans", "M\\udcfcller"))
    ended = run_command("train", path, "--print_config")
    assert ended.code == 0 and json.loads(ended.out)["data_dir"] == "M\\udcfcller"
