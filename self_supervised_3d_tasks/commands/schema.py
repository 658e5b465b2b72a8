"""Write a JSON Schema for the experiment files of ``train`` and of ``finetune`` into a folder.

An editor that knows JSON Schema completes and checks the files that name it in their ``"$schema"``.
"""

from collections.abc import Sequence
from pathlib import Path

from self_supervised_3d_tasks import commands, terminal
from self_supervised_3d_tasks.experiment import schema
from self_supervised_3d_tasks.experiment.load import COMMANDS
from self_supervised_3d_tasks.files.json_files import write_json

USAGE = "FOLDER"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    commands.run(execute, usage=USAGE, example="configs_json/schema", argv=argv)


def execute(folder: str) -> None:
    """Write ``train.json`` and ``finetune.json`` into a folder, which is made if need be."""
    for command in COMMANDS:
        path = Path(folder) / f"{command}.json"
        write_json(path, schema.json_schema(command))
        terminal.say(path)


if __name__ == "__main__":
    main()
