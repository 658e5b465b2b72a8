"""A data set made ready for training."""

import functools
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags, logging
from pydantic import BaseModel, ValidationError

from self_supervised_3d_tasks import commands, preparation
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment.load import override
from self_supervised_3d_tasks.files.paths import as_path

DEFINE = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string, bool: flags.DEFINE_bool}
USAGE, EXAMPLE = "NAME --output PATH [--flag value]", "demo --output demo_data"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    argv = sys.argv if argv is None else argv
    program, name = argv[0], argv[1] if len(argv) > 1 else ""
    if name in known():
        module = importlib.import_module(f"{preparation.__name__}.{name}")
        define_flags(module.Options)
        usage, main = _usage(name, module), functools.partial(execute, module, program)
        commands.run(main, usage=usage, text=module.__doc__, example=EXAMPLE, argv=argv)
    else:
        # The flags belong to the data set, so that without one none of them can be parsed.
        usage = f"{USAGE} (NAME: {', '.join(known())})"
        main = functools.partial(_refuse, commands.usage_line(program, usage))
        commands.run(main, usage=usage, text=__doc__, example=EXAMPLE, argv=argv[:2])


def known() -> list[str]:
    """Return the names of the data sets: the public modules of `self_supervised_3d_tasks.preparation`."""
    names = (module.name for module in pkgutil.iter_modules(preparation.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def define_flags(options: type[BaseModel]) -> None:
    """Define ``--output`` and one flag per field of a preparation's options."""
    flags.DEFINE_string("output", None, "folder or file to make")
    flags.DEFINE_multi_string("set", [], "key=value: another way to give an option below; repeatable")
    flags.DEFINE_bool("dry_run", False, "print the options and stop")
    for name, field in options.model_fields.items():
        DEFINE[field.annotation](name, field.default, field.description)


def execute(module: ModuleType, program: str, *names: str) -> None:
    """Run one preparation with the parsed flags.

    Args:
        module: A module of `self_supervised_3d_tasks.preparation`.
        program: The name of the program, for messages.
        names: The positional arguments: the preparation's name, and its source where it has one.

    Raises:
        UserError: An argument or flag is missing or out of range, or the preparation refuses.
    """
    usage = commands.usage_line(program, _usage("NAME", module))
    name, *sources = names
    expected = 1 if hasattr(module, "SOURCE") else 0
    if len(sources) > expected:
        raise UserError(f"unexpected argument {sources[expected]!r}; {usage}")
    if len(sources) < expected:
        raise UserError(f"{module.SOURCE} is missing; {commands.usage_line(program, _usage(name, module))}")
    if not flags.FLAGS["output"].value:
        raise UserError(f"--output is missing; {usage}")
    values = {name: flags.FLAGS[name].value for name in module.Options.model_fields}
    for item in flags.FLAGS["set"].value:
        override(values, item)
    try:
        options = module.Options(**values)
    except ValidationError as error:
        first = error.errors()[0]
        hint = nearest(first["loc"][0], module.Options.model_fields) if first["type"] == "extra_forbidden" else ""
        raise UserError(f"--{first['loc'][0]}: {first['msg']}, received {first['input']!r}.{hint}") from error
    output = as_path(flags.FLAGS["output"].value)
    if flags.FLAGS.dry_run:
        print(
            "\n".join(
                [
                    *(f"source {source}" for source in sources),
                    f"output {output}",
                    *(f"{name} {value}" for name, value in options),
                ]
            )
        )
        return
    module.prepare(*map(as_path, sources), output, options)
    logging.info("ready: %s", output)


def _usage(name: str, module: ModuleType) -> str:
    return USAGE.replace("NAME", f"{name} {module.SOURCE}" if hasattr(module, "SOURCE") else name)


def _refuse(usage: str, name: str | None = None) -> None:
    if name is None:
        raise UserError(f"the data set is missing; {usage}")
    hint = nearest(name, known())
    raise UserError(f"no data set {name!r} can be prepared; known: {', '.join(known())}.{hint}")


if __name__ == "__main__":
    main()
