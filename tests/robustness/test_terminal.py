"""How commands end: what the system refuses, signals, closed pipes and narrow encodings."""

from __future__ import annotations

import errno
import io
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags, logging

from self_supervised_3d_tasks import terminal
from self_supervised_3d_tasks.commands import example, experiment_run, predict

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted((ROOT / "self_supervised_3d_tasks" / "commands").glob("[a-z]*.py"))
COMMANDS = [path for path in COMMANDS if path.stem != "together"]  # a part of two of them
OUT_OF_MEMORY = type("ResourceExhaustedError", (Exception,), {})
SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "interrupted by SIGTERM")]


def raising(error):
    def function(*_):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: no permission; change its permissions"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "no space is left on this disk; make room, then start again",
        ),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: this file system can only be read; choose another"),
        (OSError(errno.EIO, "Input/output error", "a"), "a: the disk failed to read or write"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "a/b: a part of this path is a file"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "a: no such file or folder"),
        (MemoryError(), "not enough memory; take smaller batches"),
        (
            OUT_OF_MEMORY("OOM when allocating tensor with shape[9]\n on"),
            "OOM when allocating tensor with shape[9]: not enough",
        ),
        (RuntimeError("cannot close: errno = 28, error message = 'No space left'"), "no space is left on this disk"),
        (OUT_OF_MEMORY("runs/events; No space left on device"), "no space is left on this disk"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error, text, run_command, monkeypatch):
    monkeypatch.setattr(example, "examples", raising(error))
    ended = run_command("example")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {text}") and ended.err.count("\n") == 1


@pytest.mark.parametrize("below", ["file/below", "n" * 300, "file/" * 1000])
def test_an_output_that_cannot_be_made_is_one_sentence(below, run_command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    ended = run_command("schema", below)
    assert ended.code == 2 and ended.err.count("\n") == 1 and len(ended.err) < 400
    assert "; correct the path" in ended.err or "; choose a shorter one" in ended.err


def test_a_defect_keeps_its_traceback(run_command, monkeypatch):
    monkeypatch.setattr(example, "examples", raising(RuntimeError("ours")))
    with pytest.raises(RuntimeError, match="ours"):
        run_command("example")


@pytest.mark.parametrize(("number", "code", "text"), SIGNALS)
@pytest.mark.parametrize("made_of_it", [None, ValueError])
def test_a_signal_says_how_to_go_on(number, code, text, made_of_it, run_command, monkeypatch):
    """Even where a library at work turns the exception into one of its own."""

    def load_experiment(*_):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if made_of_it is None:
                raise
            raise made_of_it("callback failed") from None

    monkeypatch.setattr(experiment_run, "load_experiment", load_experiment)
    before = signal.getsignal(number)
    for arguments in (["a b.json"], ["a b.json", "--resume"]):
        ended = run_command("train", *arguments)
        assert (ended.code, ended.err) == (code, f"{text}; go on with: python train.py 'a b.json' --resume\n")
    assert run_command("train", "a.json", "--dry_run").err == f"{text}\n"
    assert signal.getsignal(number) is before
    terminal.check()  # nothing is left of it


def test_a_command_that_cannot_go_on_does_not_advise_it(run_command, monkeypatch):
    monkeypatch.setattr(example, "examples", lambda: signal.raise_signal(signal.SIGTERM))
    assert run_command("example") == (143, "", "interrupted by SIGTERM\n")


def test_a_signal_that_is_sent_twice_counts_once():
    """As `timeout` does, which signals a process and its group."""
    with pytest.raises(terminal.Interrupted), terminal.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_comes_while_an_object_is_deleted_is_told_again(capsys):
    """Python lets no exception out of there: it prints a traceback and goes on."""

    class Slow:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    end = time.monotonic() + 30
    with pytest.raises(terminal.Interrupted, match="SIGTERM"), terminal.interruptible():
        Slow()
        while time.monotonic() < end:
            pass
    assert time.monotonic() < end
    assert capsys.readouterr().err == ""


def test_what_is_ignored_stays_ignored():
    """`nohup` lets a process outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminal.interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("ascii", rb"Sch\xe4del \udcff \u2192"), ("cp1252", b"Sch\xe4del \\udcff \\u2192"), ("utf-8", None)],
)
def test_every_character_can_be_printed(encoding, written, monkeypatch):
    text, kept = "Schädel \udcff →", io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding=encoding))
    terminal.open_streams()
    terminal.say(text)
    assert kept.getvalue() == (written or text.encode("utf-8", "backslashreplace")) + b"\n"


@pytest.fixture(autouse=True)
def answered():
    """Let Ctrl-C be answered, which a shell lets what it starts in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=["closed pipe", "full disk"])
def unread(request, monkeypatch):
    """A stdout that nobody reads any more, or that takes nothing more."""
    if request.param == "full disk":
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield
        monkeypatch.undo()


def test_predictions_go_on_when_their_list_is_read_no_more(unread, monkeypatch, tmp_path):
    made = []

    class Predictor:
        def describe(self):
            return "a model"

        def place(self, source, target):
            return target

        def predict_path(self, source, target, **_):
            for number in range(5):
                made.append(number)
                yield target / f"{number}.nii.gz"

    monkeypatch.setattr(predict, "load_predictor", lambda *_, **__: Predictor())
    before = set(flags.FLAGS)
    try:
        predict.main(["predict.py", "run", str(tmp_path), str(tmp_path)])
    except SystemExit as end:
        assert not end.code
    finally:
        forget_flags(before)
    assert made == [0, 1, 2, 3, 4]


def forget_flags(before):
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_module_that_is_run_as_a_script_does_something(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--no_such_flag"])
    before, verbosity = set(flags.FLAGS), logging.get_verbosity()
    try:
        with pytest.raises(SystemExit, match="2"):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        forget_flags(before)
        logging.set_verbosity(verbosity)
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


EARLY = """
import signal, types
from self_supervised_3d_tasks import __main__ as entry
entry.importlib = types.SimpleNamespace(import_module=lambda name: signal.raise_signal({number}))
entry.script("train")
"""


def test_a_signal_while_a_command_is_imported_is_one_line():
    for number, code, _ in SIGNALS:
        command = [sys.executable, "-c", EARLY.format(number=int(number))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "interrupted\n")


def test_closed_streams_are_no_mistake():
    """And no file is opened under their numbers, into which libraries would write."""
    program = (
        "import os; from self_supervised_3d_tasks import terminal as t; t.start(); t.say(1); os.path.samestat("
        "*map(os.fstat, (1, 2))) or exit(3); exit(open(os.devnull).fileno() < 3)"
    )
    command = f'"{sys.executable}" -c "{program}" <&- >&- 2>&-'
    assert subprocess.run(command, shell=True, cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", range(60, 1200, 120))
@pytest.mark.parametrize(("number", "code", "_"), SIGNALS)
def test_a_signal_at_any_moment_of_the_start(milliseconds, number, code, _):
    process = subprocess.Popen([sys.executable, "train.py", "none.json"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(milliseconds / 1000)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    if "Fatal Python error: init_import_site" not in err:  # while Python itself starts, nobody can answer yet
        assert f"{ROOT}/self_supervised_3d_tasks/commands" not in err
        assert process.returncode in (code, 2, -number)  # before its first line it dies of the signal


@pytest.mark.slow
def test_a_training_that_is_ended_goes_on_as_it_says(write_scans, tmp_path):
    write_scans(tmp_path / "scans", 4)
    values = '"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 16, "batch_size": 2'
    network = '"enc_filters": 4, "num_layers": 1, "head_units": [8], "pooling": "none", "number_channels": 1'
    (tmp_path / "e.json").write_text(f'{{{values}, {network}, "epochs": 60, "steps_per_epoch": 20}}')
    command = [sys.executable, str(ROOT / "train.py"), "e.json"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_CPP")}
    with open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=err, stdout=err, env=environment)
    deadline = time.monotonic() + 180
    while not list(tmp_path.rglob("state.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    lines = (tmp_path / "err").read_text().splitlines()
    assert lines[-1] == f"interrupted by SIGTERM; go on with: python {ROOT / 'train.py'} e.json --resume"
    assert " of 60 epochs are kept; what came after them is dropped" in lines[-2]
    assert not [line for line in lines if "Traceback" in line or line[:6] in ("I0000 ", "E0000 ", "W0000 ", "WARNIN")]
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    history = next(tmp_path.rglob("history.csv")).read_text().splitlines()
    assert [line.split(",")[0] for line in history[1:]] == [str(number) for number in range(1, 61)]
