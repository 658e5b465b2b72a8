import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(body, *arguments):
    """Run a command whose ``main(*argv)`` has the given body."""
    lines = [
        "import os",
        "from absl import flags, logging",
        "from self_supervised_3d_tasks import commands",
        "from self_supervised_3d_tasks.errors import UserError",
        "flags.DEFINE_integer('steps', 3, 'number of steps')",
        f"def main(*argv):\n    {body}",
        "commands.run(main, usage='FILE', example='a.json')",
    ]
    command = [sys.executable, "-c", "\n".join(lines), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise UserError('key: expected 1, received 2')", 2, "error: key: expected 1, received 2\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_what_a_user_may_meet_is_one_message_without_a_traceback(body, code, message):
    result = run(body)
    assert (result.returncode, result.stderr) == (code, message)


def test_defects_keep_their_traceback():
    result = run("raise RuntimeError('ours')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_arguments_and_flags_reach_main():
    result = run("print(argv, flags.FLAGS.steps)", "a.json", "--steps=5")
    assert (result.returncode, result.stdout, result.stderr) == (0, "('a.json',) 5\n", "")


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["example", "a", "b"], "example [NAME]"),
        (["schema"], "schema FOLDER"),
        (["schema", "a", "b"], "schema FOLDER"),
        (["predict", "a", "b"], "predict RUN_DIR INPUT OUTPUT ["),
        (["analyse", "a", "b"], "analyse RUN_DIR ["),
        (["train"], "train FILE.json ["),
        (["finetune"], "finetune FILE.json ["),
    ],
)
def test_a_wrong_number_of_arguments_is_answered_with_the_usage(arguments, usage):
    program = [sys.executable, "-m", "self_supervised_3d_tasks"]
    result = subprocess.run([*program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: usage: python -m self_supervised_3d_tasks {usage}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--stepz=5"], ["--steps=five"], ["--steps"]])
def test_a_wrong_flag_is_one_message(arguments):
    result = run("raise RuntimeError('never called')", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "steps" in result.stderr
    assert "Traceback" not in result.stderr


def test_log_goes_to_stderr_from_info_on_with_the_time():
    result = run("logging.info('epoch %d', 1); logging.debug('detail')")
    assert result.stdout == ""
    assert result.stderr[2] == result.stderr[5] == ":"
    assert result.stderr[8:] == " epoch 1\n"


def test_verbosity_is_the_users():
    assert run("logging.info('epoch')", "--verbosity=-1").stderr == ""


def test_tensorflow_is_told_to_be_quiet():
    assert run("print(os.environ['TF_CPP_MIN_LOG_LEVEL'])").stdout == "3\n"


@pytest.mark.parametrize("count", [1, 100_000])
def test_a_reader_that_wants_no_more_is_no_mistake(count):
    lines = [
        "from self_supervised_3d_tasks import commands",
        f"def main():\n    print('line\\n' * {count})",
        "commands.run(main, usage='', example='')",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
