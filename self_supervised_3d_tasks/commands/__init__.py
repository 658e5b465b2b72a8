"""The command line: one module per command; `experiment_run` is what train and finetune share. Nothing imports them."""

import inspect
import logging as standard_logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from self_supervised_3d_tasks.errors import UserError

HELP = ("--help", "-help", "-h")


def run(
    main: Callable[..., None], *, usage: str, example: str, text: str | None = None, argv: Sequence[str] | None = None
) -> None:
    """Parse the command line, run ``main`` and leave the process with the right exit code.

    0: done. 2: the user can put it right; one message on stderr, no traceback. 130: interrupted from the
    keyboard. 141: whoever read the output wants no more of it. Everything else is a defect of ours and keeps its
    traceback.

    Args:
        main: Takes the positional arguments that the command has; flags are parsed. Where it cannot take as many as
            there are, the message is how the command is used.
        usage: What follows the name of the program; ``--help`` prints it with ``text``, ``example`` and the flags.
        example: What follows the name of the program in an example.
        text: What the command does; default: the docstring of the module of ``main``.
        argv: Name of the program and arguments; default: those of the process.
    """
    program, *arguments = sys.argv if argv is None else argv
    if any(argument in HELP for argument in arguments):
        text = (text or inspect.getmodule(main).__doc__).strip().replace("``", "")
        print("\n\n".join([usage_line(program, usage), text, f"example: {_as_typed(program)} {example}", *_flags()]))
        return
    # Read by TensorFlow when it is loaded, later on; without it every run starts with a page about the CPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app.run(lambda given: _call(main, usage, *given), argv=[program, *arguments], flags_parser=flags.FLAGS)
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (UserError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def usage_line(program: str, usage: str) -> str:
    """Return the line that says how a program is used."""
    return f"usage: {_as_typed(program)} {usage}"


def _as_typed(program: str) -> str:
    """Return how the program was started: as a script, as a module of the package, or by the name that is given."""
    path = Path(program)
    if path.suffix != ".py":
        return program
    module = f"-m {__name__}.{path.stem}"
    return f"python {module if path.parent == Path(__file__).parent else path.name}"


def _call(main: Callable[..., None], usage: str, program: str, *arguments: str) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(standard_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError:
        raise UserError(usage_line(program, usage)) from None
    main(*arguments)
    sys.stdout.flush()


def _flags() -> list[str]:
    """Return one line per flag of each module that has some; absl's own are left out."""
    modules = flags.FLAGS.flags_by_module_dict()
    return ["\n".join(map(_line, modules[name])) for name in sorted(modules) if not name.startswith("absl.")]


def _line(flag: flags.Flag) -> str:
    text = flag.help.partition(";\n")[0]  # absl adds a line of its own to repeatable flags
    default = "" if flag.default in (None, []) or flag.boolean else f" (default: {flag.default})"
    return f"  --{flag.name:<16} {text}{default}"
