"""List the experiment files that come with the package, or write one of them into the current folder.

The file that is written holds the keys of its bases too. It is never written over another one.
"""

from collections.abc import Sequence
from pathlib import Path

import self_supervised_3d_tasks
from self_supervised_3d_tasks import commands
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment import bases
from self_supervised_3d_tasks.files.json_files import write_json

USAGE = "[NAME]"
PACKAGE = Path(self_supervised_3d_tasks.__file__).parent


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    commands.run(execute, usage=USAGE, example="cpc_demo", argv=argv)


def execute(name: str | None = None) -> None:
    """List the files, or write one.

    Args:
        name: The name of a file as it is listed; None: all are listed.

    Raises:
        UserError: No file has this name, or one that is called so already exists in the current folder.
    """
    files = examples()
    if name is None:
        for known, path in files.items():
            print(f"{known:<44} {_summary(bases.read(path)[0])}")
        return
    name = name.removesuffix(".json")
    if name not in files:
        raise UserError(f"no example is called {name!r}.{nearest(name, files)} Without a name, all are listed")
    values = {key: value for key, value in bases.read(files[name])[0].items() if key != "$schema"}
    target = Path(f"{name}.json")
    if target.exists():
        raise UserError(f"{target}: already exists and is left as it is; remove it, or go to another folder")
    write_json(target, values)
    print(target)


def examples() -> dict[str, Path]:
    """Return the experiment files by name; in a checkout they lie beside the package, installed inside it."""
    inside, beside = PACKAGE / "configs_json", PACKAGE.parent / "configs_json"
    folder = inside if inside.is_dir() else beside
    paths = [*sorted(folder.glob("*.json")), *sorted(folder.glob("finetune/*.json"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _summary(values: dict) -> str:
    if "data_dir_train" in values:
        return f"finetune: {values['dataset_name']}, {values['data_dir_train']}, from {values.get('model_checkpoint')}"
    return f"train: {values['algorithm']}, {values['dataset_name']}, {values['data_dir']}"


if __name__ == "__main__":
    main()
