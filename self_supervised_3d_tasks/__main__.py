"""``ss3d COMMAND …`` and ``python -m self_supervised_3d_tasks COMMAND …``: every command under one name."""

import importlib
import os
import sys
from collections.abc import Sequence

from self_supervised_3d_tasks import terminal

COMMANDS = {
    "prepare": "make a data set ready for training",
    "train": "unlabelled scans → a pretrained encoder",
    "finetune": "few labels → scores, pretrained against from scratch",
    "predict": "new scans → masks on the original grid, or a table of classes",
    "analyse": "what a pretraining with a decoder has learned",
    "example": "list the experiment files of the package, or write one into the current folder",
    "schema": "write JSON Schemas of the experiment files, by which editors complete and check them",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names with the arguments behind it.

    Args:
        argv: Program name and arguments; default: those of the process.
    """
    if argv is None:
        terminal.start()
    argv = list(sys.argv if argv is None else argv)
    program = "ss3d" if os.path.splitext(os.path.basename(argv[0]))[0] == "ss3d" else f"python -m {__package__}"
    name = argv[1] if len(argv) > 1 else "--help"
    if name in ("--help", "-help", "-h"):
        lines = [f"  {command:<10}{summary}" for command, summary in COMMANDS.items()]
        start = [f"usage: {program} COMMAND ...", f"example: {program} example cpc_demo", ""]
        terminal.say("\n".join([*start, *lines, "", f"{program} COMMAND --help says how a command is used."]))
    elif name in COMMANDS:
        module = importlib.import_module(f"self_supervised_3d_tasks.commands.{name}")
        module.main([f"{program} {name}", *argv[2:]])
    else:
        # Imported here like the commands: little may stand between the start and the answer to a signal.
        hint = importlib.import_module("self_supervised_3d_tasks.errors").nearest(name, COMMANDS)
        print(f"error: no command is called {name!r}; known: {', '.join(COMMANDS)}.{hint}", file=sys.stderr)
        sys.exit(2)


def script(name: str) -> None:
    """Run a command in a process of its own, such as ``python train.py``.

    Args:
        name: One of `COMMANDS`.
    """
    terminal.start()
    importlib.import_module(f"self_supervised_3d_tasks.commands.{name}").main()


if __name__ == "__main__":
    main()
