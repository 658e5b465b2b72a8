"""Every command under one name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from self_supervised_3d_tasks import __main__ as ss3d

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "self_supervised_3d_tasks"
SCRIPTS = ("train", "finetune", "predict", "prepare")


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed(capsys, arguments):
    ss3d.main(["/environment/bin/ss3d", *arguments])
    usage, example, *rest = capsys.readouterr().out.splitlines()
    assert (usage, example) == ("usage: ss3d COMMAND ...", "example: ss3d example cpc_demo")
    assert [line.split()[0] for line in rest if line.startswith("  ")] == list(ss3d.COMMANDS)


def test_an_unknown_command_names_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        ss3d.main(["ss3d", "trian"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no command is called 'trian'; known: prepare, train, finetune,")
    assert err.endswith(" Did you mean 'train'?\n")


@pytest.mark.parametrize("name", ss3d.COMMANDS)
def test_every_command_says_how_it_is_used(name):
    code, out, err = python("-m", PACKAGE, name, "--help")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"usage: python -m {PACKAGE} {name}")
    assert f"\nexample: python -m {PACKAGE} {name} " in out


@pytest.mark.parametrize(
    ("start", "shown"),
    [([f"{name}.py"], f"python {name}.py") for name in SCRIPTS]
    + [(["-m", f"{PACKAGE}.commands.{name}"], f"python -m {PACKAGE}.commands.{name}") for name in ("train", "schema")],
)
def test_help_shows_the_command_as_it_was_typed(start, shown):
    code, out, err = python(*start, "-h")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: {shown} ")


@pytest.mark.parametrize("start", [["train.py"], ["-m", f"{PACKAGE}.commands.train"], ["-m", PACKAGE, "train"]])
def test_every_way_leads_to_the_same_command(start):
    code, out, err = python(*start, "configs_json/none.json")
    assert (code, out) == (2, "")
    assert err == "error: configs_json/none.json: no such experiment file\n"
    assert python(*start)[2].startswith("error: usage: python ")
