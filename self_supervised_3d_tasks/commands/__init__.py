"""The command line: one module per top-level script. Nothing imports them; they import everything."""

from __future__ import annotations

import inspect
import logging as standard_logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from self_supervised_3d_tasks.errors import UserError

HELP = ("--help", "-help", "-h")
PACKAGE = __name__.partition(".")[0]


def run(main: Callable[[list[str]], None], *, usage: str | None = None, argv: Sequence[str] | None = None) -> None:
    """Parse the command line, run ``main`` and leave the process with the right exit code.

    0: done. 2: the user can put it right; one message on stderr, no traceback. 130: interrupted from the
    keyboard. Everything else is a defect of ours and keeps its traceback.

    Args:
        main: Takes the program name and the positional arguments; flags are parsed.
        usage: What ``--help`` says before it lists the flags; default: the docstring of the command's module.
        argv: Program name and arguments; default: those of the process.
    """
    argv = list(sys.argv if argv is None else argv)
    if any(argument in HELP for argument in argv[1:]):
        print(_help(usage))
        sys.exit(0)
    # Read by TensorFlow when it is loaded, later on; without it every run starts with a page about the CPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app.run(lambda arguments: _configured(main, arguments), argv=argv, flags_parser=flags.FLAGS)
    except (UserError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _configured(main: Callable[[list[str]], None], argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(standard_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    main(argv)


def _help(usage: str | None) -> str:
    """Return the usage and the flags that this package defines; absl's own text leaves both out."""
    if usage is None:
        entry = getattr(sys.modules["__main__"], "main", None)
        usage = (inspect.getdoc(inspect.getmodule(entry)) or "").replace("``", "")
    modules = [name for name in flags.FLAGS.flags_by_module_dict() if name.startswith(f"{PACKAGE}.")]
    return "\n\n".join([usage, *(_flags(name) for name in sorted(modules))]).strip()


def _flags(module: str) -> str:
    """Return one line per flag of a module."""
    lines = []
    for flag in flags.FLAGS.get_flags_for_module(module):
        default = "" if flag.default in (None, []) or flag.boolean else f" (default: {flag.default})"
        text = flag.help.partition(";\n")[0]  # absl adds a line of its own to repeatable flags
        lines.append(f"  --{flag.name:<16} {text}{default}")
    return "\n".join(lines)
