"""The rules of the code that a machine can check: layers, heavy imports, forbidden constructs, sizes."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import self_supervised_3d_tasks

PACKAGE = Path(self_supervised_3d_tasks.__file__).parent
NAME = PACKAGE.name

# From the bottom to the top: a part may import those before it and files of its own, and no file imports in a circle.
ORDER = [
    *("errors", "backend", "lazy", "limits", "machine", "shapes", "terminal"),
    *("files", "executors", "ops", "losses", "models", "scores", "data", "algorithms", "training"),
    *("transfer", "experiment", "plots", "inference", "downstream", "analysis", "pretraining", "finetuning"),
    *("prediction", "preparation", "commands", "__main__"),
]
PLACE = {part: number for number, part in enumerate(ORDER)}
# Which parts may name a library; every other part may not, not even inside a function.
ALLOWED = {
    "tensorflow": {"lazy", "ops", "data", "algorithms", "training"},
    "matplotlib": {"plots"},
    "blosc2": {"data/store/disk.py"},
    "psutil": {"machine", "files/leftovers.py"},
    "joblib": {"data/store/processes.py", "executors"},
    "submitit": {"executors/slurm.py"},
    "jax": {"training/distribution/processes.py", "training/distribution/data_parallel.py"},
    "ray": {"executors/ray.py"},
    "nibabel": {
        "data/decoding/nifti_files.py",
        "data/formats/nifti_pairs.py",
        "data/formats/freesurfer.py",
        "data/decoding/grid.py",
        "prediction/probabilities.py",
        "preparation",
    },
    "pydicom": {"data/dicom/headers.py", "data/dicom/pixels.py", "data/dicom/segmentations.py"},
    "SimpleITK": {
        "data/decoding/simple_itk.py",
        "data/formats/metaimage.py",
        "data/formats/nrrd.py",
        "data/dicom/pixels.py",
    },
    "highdicom": {"data/dicom/segmentations.py"},
    "surface_distance": {"scores/surface.py"},
    "pickle": set(),
    "dill": set(),
    "cloudpickle": set(),
}
MAX_FILE, MAX_FUNCTION = 300, 60

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES
}
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def part(path):
    """Return the top-level folder or module that a file belongs to; the package's own __init__ is ``""``."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(tree, path):
    """Yield (line, dotted name) of every import: statements at any depth, under ``TYPE_CHECKING`` too, `lazy.load` and
    `import_module` of a name, and the libraries behind `lazy.keras` and `lazy.tf`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = path.relative_to(PACKAGE.parent).parts[: -node.level]
                module = ".".join([*parents, *([module] if module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            stand_ins = {"keras": "keras", "tf": "tensorflow"} if module == f"{NAME}.lazy" else {}
            yield from ((node.lineno, stand_ins[alias.name]) for alias in node.names if alias.name in stand_ins)
        elif isinstance(node, ast.Call) and called(node) in {"load", "import_module", "__import__"}:
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def looked_up(tree, path):
    """Yield (line, dotted name) of the modules that a file can import by a name which it makes itself.

    Where it does so, every text in it that names a folder or a file of the package counts for all that is inside, and
    ``__name__`` or ``__path__`` for its own folder.
    """
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Call) and called(node) in {"import_module", "iter_modules"} for node in nodes):
        return
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{NAME}."):
            yield from ((node.lineno, name) for name in MODULES if f"{name}.".startswith(f"{node.value.rstrip('.')}."))
        if isinstance(node, ast.Name) and node.id in {"__name__", "__path__"} and path.name == "__init__.py":
            folder = ".".join(path.relative_to(PACKAGE.parent).parts[:-1])
            yield from ((node.lineno, name) for name in MODULES if name.startswith(f"{folder}."))


def imported_files(tree, path):
    """Yield (line, path) of every file of the package that a file imports; a folder stands for its ``__init__``."""
    for line, name in [*imports(tree, path), *looked_up(tree, path)]:
        for candidate in (name, name.rpartition(".")[0]):
            if candidate in MODULES and candidate != NAME:
                if MODULES[candidate] != path:
                    yield line, MODULES[candidate]
                break


def called(node):
    """Return the last name of what a call calls: ``c`` for ``a.b.c()``."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def order_violations(tree, path):
    source = part(path)
    for line, target in imported_files(tree, path):
        if part(target) != source and PLACE[source] <= PLACE[part(target)]:
            yield f"line {line}: {source} imports {part(target)}, which stands above it"


def circle(graph):
    """Return the files of one circle, in its order; none where the graph has none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [path.relative_to(PACKAGE).as_posix() for path in error.args[1]]
    return []


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
        if plain and node.func.id == "print" and part(path) not in ("commands", "__main__"):
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


def test_every_part_has_a_place():
    parts = {part(path) for path in FILES} - {""}
    assert parts == set(ORDER)


@every_file
def test_imports_point_downwards(path):
    if part(path):
        assert list(order_violations(ast.parse(path.read_text()), path)) == []


def test_no_file_imports_in_a_circle():
    files = [path for path in FILES if part(path)]
    graph = {path: {target for _, target in imported_files(ast.parse(path.read_text()), path)} for path in files}
    assert circle(graph) == []
    assert sum(map(len, graph.values())) > 300, "the graph has lost its edges"


def test_the_package_itself_is_only_a_door():
    """Files import each other, never a name of the package's own ``__init__``, which looks names up in all of them."""
    names = set(self_supervised_3d_tasks.__all__) | {"__version__"}
    for path in FILES[1:]:
        assert not names & {name.removeprefix(f"{NAME}.") for _, name in imports(ast.parse(path.read_text()), path)}


def test_a_circle_is_found():
    a, b, c = (PACKAGE / name for name in ("a.py", "b.py", "c.py"))
    assert circle({a: {b}, b: {c}, c: {a}}) in (["a.py", "b.py", "c.py", "a.py"], ["a.py", "c.py", "b.py", "a.py"])
    assert circle({a: {b, c}, b: {c}, c: set()}) == []


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
        ("ops/x.py", "from self_supervised_3d_tasks.data import splits", "ops imports data"),
        ("ops/x.py", "from ..data import splits", "ops imports data"),
        ("ops/x.py", "def f():\n    import self_supervised_3d_tasks.data.splits", "line 2: ops imports data"),
        ("ops/x.py", "if TYPE_CHECKING:\n    from self_supervised_3d_tasks.data import splits", "line 2: ops imports"),
        ("ops/x.py", 'x = lazy.load("self_supervised_3d_tasks.training")', "imports training"),
        ("ops/x.py", 'P = "self_supervised_3d_tasks.commands.train"\nimport_module(P + name)', "line 1: ops imports"),
        ("data/x.py", "from self_supervised_3d_tasks import algorithms", "data imports algorithms"),
        ("plots/x.py", "from self_supervised_3d_tasks import commands", "imports commands"),
        ("models/x.py", "from self_supervised_3d_tasks.lazy import tf", "tensorflow may be imported in"),
        ("losses/x.py", "def f():\n    import tensorflow.math", "line 2: tensorflow.math may be"),
        ("inference.py", "from matplotlib import pyplot", "matplotlib.pyplot may be imported in ['plots'] only"),
        ("data/stream/x.py", "import nibabel", "nibabel may be imported in"),
        ("data/x.py", "import pickle", "pickle may be imported in no file"),
        ("models/x.py", "keras.layers.Lambda(f)", "Lambda"),
        ("ops/x.py", "eval(text)", "eval()"),
        ("ops/x.py", "print(text)", "print()"),
        ("data/x.py", "np.load(path)", "np.load without allow_pickle=False"),
        ("ops/x.py", "x = 1\n" * (MAX_FILE + 1), f"{MAX_FILE + 1} lines, at most"),
        ("ops/x.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION, f"line 1: f has {MAX_FUNCTION + 1} lines, at most"),
    ],
)
def test_the_rules_find_what_they_forbid(file, source, found):
    violations = all_violations(source, PACKAGE / file)
    assert len(violations) == 1
    assert found in violations[0]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("ops/x.py", "from self_supervised_3d_tasks.ops import seeds\nimport tensorflow"),
        ("algorithms/x.py", "from self_supervised_3d_tasks.ops import seeds"),
        ("losses/x.py", "from self_supervised_3d_tasks import errors, shapes"),
        ("data/decoding/nifti_files.py", "import nibabel\nnp.load(path, allow_pickle=False)"),
        ("commands/x.py", "print(1)\nfrom self_supervised_3d_tasks import training"),
        ("ops/x.py", "inspect.signature(f, eval_str=True)\nmodel.eval()"),
    ],
)
def test_the_rules_allow_what_is_allowed(file, source):
    assert all_violations(source, PACKAGE / file) == []


def all_violations(source, path):
    tree = ast.parse(source)
    checks = [order_violations, library_violations, construct_violations]
    return [line for check in checks for line in check(tree, path)] + list(size_violations(source, tree))


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
