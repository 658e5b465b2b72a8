"""The command line: one module per command; `experiment_run` is what train and finetune share. Nothing imports them."""

import contextlib
import inspect
import logging as standard_logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from self_supervised_3d_tasks import lazy, terminal
from self_supervised_3d_tasks.errors import UserError, describe, is_of_the_system, refused

# Of a word that is longer than any honest name, both ends are shown.
_KEPT = 100
_ENDLESS = re.compile(rf"\S{{{4 * _KEPT},}}")
HELP = ("--help", "-help", "-h")


def run(
    main: Callable[..., None], *, usage: str, example: str, text: str | None = None, argv: Sequence[str] | None = None
) -> None:
    """Parse the command line, run ``main`` and leave the process with the right exit code.

    0: done. 2: the user can put it right, a mistake or what the system refuses; one message on stderr, no traceback.
    130, 143, 129: ended by Ctrl-C, by SIGTERM or by the end of its terminal. 141: whoever read the output wants no more
    of it. Everything else is a defect of ours and keeps its traceback.

    Args:
        main: Takes the positional arguments that the command has; flags are parsed. Where it cannot take as many as
            there are, the message is how the command is used.
        usage: What follows the name of the program; ``--help`` prints it with ``text``, ``example`` and the flags.
        example: What follows the name of the program in an example.
        text: What the command does; default: the docstring of the module of ``main``.
        argv: Name of the program and arguments; default: those of the process.
    """
    terminal.open_streams()
    program, *arguments = sys.argv if argv is None else argv
    if any(argument in HELP for argument in arguments):
        text = (text or inspect.getmodule(main).__doc__).strip().replace("``", "")
        lines = [usage_line(program, usage), text, f"example: {_as_typed(program)} {example}", *_flags()]
        terminal.say("\n\n".join(lines))
        return
    # Read by TensorFlow when it is loaded, later on; without it every run starts with a page about the CPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    lazy.spare_unused_parts()
    standard_logging.captureWarnings(True)  # those of libraries; `_is_for_users` decides
    try:
        with terminal.interruptible():
            app.run(lambda given: _call(main, usage, *given), argv=[program, *arguments], flags_parser=flags.FLAGS)
    except BrokenPipeError:
        terminal.drop_stdout()
        sys.exit(141)
    except (UserError, flags.Error) as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as error:
        _end_interrupted(getattr(error, "number", signal.SIGINT), program, arguments)
    except Exception as error:
        said = refused(error) or (describe(error) if is_of_the_system(error) else None)
        if said is None:
            raise
        logging.debug("where it was", exc_info=True)
        if "resume" not in flags.FLAGS:
            said = said.replace("go on with --resume", "start again")
        _end(f"error: {said}", 2)
    finally:
        standard_logging.captureWarnings(False)


def _end(text: str, code: int) -> NoReturn:
    """Leave the process with a line on stderr, if anybody reads it, and an exit code."""
    with contextlib.suppress(OSError):
        print(_ENDLESS.sub(lambda word: f"{word[0][:_KEPT]}…{word[0][-_KEPT:]}", text), file=sys.stderr, flush=True)
    sys.exit(code)


def _end_interrupted(number: int, program: str, arguments: Sequence[str]) -> NoReturn:
    """Say how to go on, where the command can, and leave the process with the code of the signal."""
    text = "interrupted" if number == signal.SIGINT else f"interrupted by {signal.Signals(number).name}"
    given = flags.FLAGS
    if "resume" in given and given.is_parsed() and not given.dry_run:
        again = arguments if given.resume else [*arguments, "--resume"]
        text += f"; go on with: {_as_typed(program)} {shlex.join(again)}"
    _end(text, 128 + number)


def usage_line(program: str, usage: str) -> str:
    """Return the line that says how a program is used."""
    return f"usage: {_as_typed(program)} {usage}"


def _as_typed(program: str) -> str:
    """Return how the program was started: as a script, as a module of the package, or by the name that is given."""
    path = Path(program)
    if path.suffix != ".py":
        return program
    module = f"-m {__name__}.{path.stem}"
    return f"python {module if path.parent == Path(__file__).parent else program}"


def _call(main: Callable[..., None], usage: str, program: str, *arguments: str) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(standard_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_is_for_users)
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError:
        raise UserError(usage_line(program, usage)) from None
    main(*arguments)
    sys.stdout.flush()


def _is_for_users(record: standard_logging.LogRecord) -> bool:
    """Return whether a line of the log is the product's own; those of libraries show with ``--verbosity=1``."""
    return record.name == "absl" or logging.get_verbosity() >= logging.DEBUG


def _flags() -> list[str]:
    """Return one line per flag of each module that has some; absl's own are left out."""
    modules = flags.FLAGS.flags_by_module_dict()
    return ["\n".join(map(_line, modules[name])) for name in sorted(modules) if not name.startswith("absl.")]


def _line(flag: flags.Flag) -> str:
    text = flag.help.partition(";\n")[0]  # absl adds a line of its own to repeatable flags
    default = "" if flag.default in (None, []) or flag.boolean else f" (default: {flag.default})"
    return f"  --{flag.name:<16} {text}{default}"
