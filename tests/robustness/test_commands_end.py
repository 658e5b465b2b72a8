"""Every command, called wrongly in the same ways: exit code 2 and one line that says what to do."""

from __future__ import annotations

import pytest

COMMANDS = ("train", "finetune", "predict", "prepare", "analyse", "example", "schema")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_ends_with_one_line(command, run_command):
    for _ in range(2):  # a second call meets no flags of the first
        ended = run_command(command, "--no_such_flag=1")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and "no_such_flag" in ended.err


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_missing_experiment_file_is_named(command, run_command, tmp_path):
    ended = run_command(command, tmp_path / "none.json")
    assert ended.code == 2
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and "none.json" in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_how_a_command_is_used(command, run_command):
    ended = run_command(command, "--help")
    assert ended.code == 0 and f"usage: python {command}.py" in ended.out


def test_of_an_endless_word_both_ends_are_shown(run_command, tmp_path):
    ended = run_command("example", f"first{'n' * 5000}last")
    assert ended.code == 2 and len(ended.err) < 600
    assert "first" in ended.err and "…" in ended.err and "last" in ended.err
