"""The rules of the code that a machine can check: layers, heavy imports, forbidden constructs, sizes."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import self_supervised_3d_tasks

PACKAGE = Path(self_supervised_3d_tasks.__file__).parent
NAME = PACKAGE.name

# Imports point to a lower layer, or stay inside one folder or (between single files) one layer.
LAYERS = [
    {
        *("errors", "lazy", "registry", "run_folder", "config", "legacy_keys", "schema"),
        *("experiment", "experiment_checks", "experiment_defaults", "finding_checks"),
    },
    {"ops", "models", "classification_scores", "finding_scores", "losses", "metrics", "triplet_losses"},
    {"algorithms", "data"},
    {
        *("batch_statistics", "callbacks", "checkpoints", "inference", "model_files", "plots", "pretext_scores"),
        *("collapse", "optimizers", "results", "training", "transfer", "transfer_decoder"),
    },
    {"analysis", "downstream", "evaluation", "finetuning", "prediction", "preparation", "pretraining"},
    {"commands"},
]
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
FOLDERS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
# Which parts may name a library; every other part may not, not even inside a function.
ALLOWED = {
    "tensorflow": {"ops", "data", "algorithms", "training"},
    "matplotlib": {"plots"},
    "nibabel": {"data/readers.py", "preparation"},
    "pickle": set(),
    "dill": set(),
    "cloudpickle": set(),
}
MAX_FILE, MAX_FUNCTION = 400, 70

FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def part(path):
    """Return the top-level folder or module that a file belongs to; the package's own __init__ is ``""``."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(tree, path):
    """Yield (line, dotted name) of every import: statements at any depth, `lazy.load` and `import_module`.

    The registry may look modules up by name wherever they are: that is what it is for.
    """
    functions = {"load"} if part(path) == "registry" else {"load", "import_module", "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = path.relative_to(PACKAGE.parent).parts[: -node.level]
                module = ".".join([*parents, *([module] if module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in functions:
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def called(node):
    """Return the last name of what a call calls: ``c`` for ``a.b.c()``."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def layer_violations(tree, path):
    source = part(path)
    for line, name in imports(tree, path):
        root, *rest = name.split(".")
        if root != NAME or not rest or rest[0] == source or rest[0] not in LAYER:
            continue
        above, target = LAYER[source], LAYER[rest[0]]
        sideways = above == target and not {source, rest[0]} <= FOLDERS
        if above <= target and not sideways:
            yield f"line {line}: {source} (layer {above + 1}) imports {rest[0]} (layer {target + 1})"


def library_violations(tree, path):
    relative = path.relative_to(PACKAGE).as_posix()
    for line, name in imports(tree, path):
        allowed = ALLOWED.get(name.split(".")[0])
        if allowed is not None and not {part(path), relative} & allowed:
            yield f"line {line}: {name} may be imported in {sorted(allowed) or 'no file'} only"


def construct_violations(tree, path):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "Lambda":
            yield f"line {node.lineno}: a Lambda layer cannot be loaded with safe_mode=True"
        if not isinstance(node, ast.Call):
            continue
        plain = isinstance(node.func, ast.Name)
        if plain and node.func.id in ("eval", "exec"):
            yield f"line {node.lineno}: {node.func.id}()"
        if plain and node.func.id == "print" and part(path) != "commands":
            yield f"line {node.lineno}: print(); use absl.logging"
        if ast.unparse(node.func) == "np.load" and "allow_pickle=False" not in ast.unparse(node):
            yield f"line {node.lineno}: np.load without allow_pickle=False"


def size_violations(source, tree):
    if len(source.splitlines()) > MAX_FILE:
        yield f"{len(source.splitlines())} lines, at most {MAX_FILE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION:
                yield f"line {node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION}"


def test_every_part_has_a_layer():
    parts = {part(path) for path in FILES} - {""}
    assert parts <= LAYER.keys(), f"give a layer to {sorted(parts - LAYER.keys())}"


@every_file
def test_imports_point_downwards(path):
    if part(path):
        assert list(layer_violations(ast.parse(path.read_text()), path)) == []


@every_file
def test_libraries_stay_where_they_belong(path):
    assert list(library_violations(ast.parse(path.read_text()), path)) == []


@every_file
def test_forbidden_constructs(path):
    assert list(construct_violations(ast.parse(path.read_text()), path)) == []


@every_file
def test_sizes(path):
    source = path.read_text()
    assert list(size_violations(source, ast.parse(source))) == []


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("ops/x.py", "from self_supervised_3d_tasks.data import readers", "ops (layer 2) imports data"),
        ("ops/x.py", "from ..data import readers", "ops (layer 2) imports data"),
        (
            "ops/x.py",
            "def f():\n    import self_supervised_3d_tasks.data.readers",
            "line 2: ops (layer 2) imports",
        ),
        ("ops/x.py", 'x = lazy.load("self_supervised_3d_tasks.training")', "imports training (layer 4)"),
        ("data/x.py", "from self_supervised_3d_tasks import algorithms", "data (layer 3) imports algorithms"),
        ("plots/x.py", "from self_supervised_3d_tasks import commands", "imports commands (layer 6)"),
        ("models/x.py", 'tf = lazy.load("tensorflow")', "tensorflow may be imported in"),
        ("losses.py", "def f():\n    import tensorflow.math", "line 2: tensorflow.math may be"),
        (
            "inference.py",
            "from matplotlib import pyplot",
            "matplotlib.pyplot may be imported in ['plots'] only",
        ),
        ("data/pipeline.py", "import nibabel", "nibabel may be imported in"),
        ("data/x.py", "import pickle", "pickle may be imported in no file"),
        ("models/x.py", "keras.layers.Lambda(f)", "Lambda"),
        ("ops/x.py", "eval(text)", "eval()"),
        ("ops/x.py", "print(text)", "print()"),
        ("data/x.py", "np.load(path)", "np.load without allow_pickle=False"),
        ("ops/x.py", "x = 1\n" * 401, "401 lines, at most 400"),
        ("ops/x.py", "def f():\n" + "    x = 1\n" * 70, "line 1: f has 71 lines, at most 70"),
    ],
)
def test_the_rules_find_what_they_forbid(file, source, found):
    path, tree = PACKAGE / file, ast.parse(source)
    checks = [layer_violations, library_violations, construct_violations]
    violations = [line for check in checks for line in check(tree, path)] + list(size_violations(source, tree))
    assert len(violations) == 1
    assert found in violations[0]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("ops/x.py", "from self_supervised_3d_tasks.ops import seeds\nimport tensorflow"),
        ("algorithms/x.py", "from self_supervised_3d_tasks.ops import seeds"),
        ("losses.py", "from self_supervised_3d_tasks import metrics, errors"),
        ("data/readers.py", "import nibabel\nnp.load(path, allow_pickle=False)"),
        ("commands/x.py", "print(1)\nfrom self_supervised_3d_tasks import training"),
        ("ops/x.py", "inspect.signature(f, eval_str=True)\nmodel.eval()"),
    ],
)
def test_the_rules_allow_what_is_allowed(file, source):
    path, tree = PACKAGE / file, ast.parse(source)
    checks = [layer_violations, library_violations, construct_violations]
    assert [line for check in checks for line in check(tree, path)] == []


def test_importing_every_module_loads_neither_tensorflow_nor_keras():
    program = f"""
import importlib, pkgutil, sys
import {NAME}
names = [module.name for module in pkgutil.walk_packages({NAME}.__path__, "{NAME}.")]
for name in names:
    importlib.import_module(name)
    # lazy.load leaves a stand-in under the package's own name, so that its parts tell whether it is loaded.
    loaded = {{"tensorflow.python", "keras.src", "torch.nn", "jax.numpy"}} & sys.modules.keys()
    assert not loaded, f"{{name}} loads {{loaded}}"
print(len(names))
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == len(FILES) - 1  # all but the package itself


@pytest.mark.parametrize("name", self_supervised_3d_tasks.__all__)
def test_public_names_exist_and_are_documented(name):
    assert getattr(self_supervised_3d_tasks, name).__doc__
    assert name in dir(self_supervised_3d_tasks)


def test_unknown_public_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="Rotation"):
        self_supervised_3d_tasks.Rotation  # noqa: B018


@pytest.mark.parametrize("command", ["train", "finetune", "predict", "prepare"])
def test_every_command_is_a_script_of_a_few_lines(command):
    script = PACKAGE.parent / f"{command}.py"
    assert len(script.read_text().splitlines()) <= 5
    assert callable(importlib.import_module(f"{NAME}.commands.{command}").main)
