"""Functions of this package in processes of their own, so that peaks of memory and settings are those of one alone.

python -m benchmarks.isolated benchmarks.tasks.measure '{"name": "rotation", …}'
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Failed(Exception):
    """A measurement ended with an error, whose last line this is."""


def call(function: Callable[..., Any], options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Any:
    """Return what a function of this package returns in a process of its own.

    Args:
        function: A module's function, whose result can be written as JSON.
        options: Its keyword arguments, which can be written as JSON too.
        environment: Variables for the process on top of those of this one.

    Raises:
        Failed: It raised, or its process was ended.
    """
    ended = subprocess.run(**_process(function, options, environment), capture_output=True)
    if ended.returncode:
        raise _failed(ended.stderr, ended.returncode)
    return json.loads(ended.stdout.splitlines()[-1])


@contextlib.contextmanager
def remote(
    function: Callable[..., Callable[[], Any]], options: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Iterator[Callable[[], None]]:
    """Yield what calls, in a process of its own, the function that a function of this package returns, and waits.

    Two such processes can take turns without a share in each other's threads and memory. Arguments as for `call`.

    Raises:
        Failed: It raised, or its process was ended.
    """
    with tempfile.TemporaryFile("w+") as said:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
        process = subprocess.Popen(**_process(function, options, environment, "--remote"), **pipes)

        def wait() -> None:
            if process.stdout.readline() != "done\n":
                said.seek(0)
                raise _failed(said.read(), process.wait())

        def run() -> None:
            with contextlib.suppress(BrokenPipeError):
                print(file=process.stdin, flush=True)
            wait()

        try:
            wait()
            yield run
        finally:
            process.communicate()  # it ends with its input


def _process(
    function: Callable[..., Any], options: Mapping[str, Any], environment: Mapping[str, str] | None, *more: str
) -> dict[str, Any]:
    name = f"{function.__module__}.{function.__qualname__}"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"}
    return {
        "args": [sys.executable, "-m", "benchmarks.isolated", name, json.dumps(options), *more],
        "cwd": ROOT,
        "env": os.environ | quiet | dict(environment or {}),
        "text": True,
    }


def _failed(said: str, code: int) -> Failed:
    lines = said.strip().splitlines()
    return Failed(f"{lines[-1] if lines else 'nothing was said'} (exit code {code})")


def _main(name: str, options: str, *more: str) -> None:
    module, _, called = name.rpartition(".")
    result = getattr(import_module(module), called)(**json.loads(options))
    if not more:
        print(json.dumps(result))
        return
    print("done", flush=True)
    for _ in sys.stdin:
        result()
        print("done", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
