"""No input runs code, reads a file that nobody named, or writes outside of the output; see SECURITY.md."""

from __future__ import annotations

import ast
import json
import pickle
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import self_supervised_3d_tasks
from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.folders import index
from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import check_model_file, load_model, save_model
from self_supervised_3d_tasks.models.encoders import keras_applications
from self_supervised_3d_tasks.plots import canvas

PACKAGE = Path(self_supervised_3d_tasks.__file__).parent


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def trap(tmp_path):
    """A file that only code from an input would make."""
    path = tmp_path / "code_has_run"
    yield path
    assert not path.exists()


def rewrite(path: Path, change, more=()) -> None:
    """Write a valid model with another description of it, and with more files."""
    inputs = keras.Input((2,))
    save_model(keras.Model(inputs, keras.layers.Dense(1, name="head")(inputs)), path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    change(config["config"]["layers"][1])
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*content.items(), *more]:
            archive.writestr(name, data)
    path.with_name(f"{path.name}.sha256").unlink()


def of(module, name, registered=None, **config):
    """Return a change of a layer to another class."""

    def change(layer):
        layer |= {"module": module, "class_name": name, "registered_name": registered}
        layer["config"] |= config

    return change


def in_activation(value):
    return lambda layer: layer["config"].update(activation=value)


FUNCTION = {"class_name": "function", "config": "system", "module": "os", "registered_name": "system"}
MODELS = {
    "lambda": (of("keras.layers", "Lambda", function="x"), (), "has Lambda, which can run code"),
    "marshalled code": (in_activation({"class_name": "__lambda__", "config": {"value": "eA=="}}), (), "has __lambda__"),
    "module": (of("os", "system"), (), "refers to os.system"),
    "module of another package": (of("keras_hub.layers", "Anything"), (), "refers to keras_hub.layers.Anything"),
    "name like keras": (of("keras_evil.layers", "Dense"), (), "refers to keras_evil.layers.Dense"),
    "own package": (of("self_supervised_3d_tasks.files", "models"), (), "refers to self_supervised_3d_tasks"),
    "function": (in_activation(FUNCTION), (), "refers to os.function (system)"),
    "registered object": (of("keras.layers", "Dense", "evil>Dense"), (), "evil>Dense"),
    "custom object": (of(None, "Mine", "Custom>Mine"), (), "Custom>Mine"),
    "saved model": (of("keras.layers", "TFSMLayer", filepath="/tmp"), (), "has TFSMLayer"),
    "other library": (of("keras.layers", "TorchModuleWrapper"), (), "has TorchModuleWrapper"),
    "vocabulary in any file": (of("keras.layers", "StringLookup", vocabulary="/etc/passwd"), (), "has StringLookup"),
    "entry outside": (lambda layer: None, [("../evil.py", b"")], "holds '../evil.py'"),
    "absolute entry": (lambda layer: None, [("/tmp/evil.py", b"")], "holds '/tmp/evil.py'"),
    "assets": (lambda layer: None, [("assets/evil.py", b"")], "holds 'assets/evil.py'"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_made_of_keras_layers_only(name, tmp_path, monkeypatch):
    change, more, message = MODELS[name]
    rewrite(tmp_path / "model.keras", change, more)
    calls = []
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: calls.append("Keras was asked"))
    for read in (check_model_file, load_model):
        with pytest.raises(UserError, match=r"model\.keras: ") as error:
            read(tmp_path / "model.keras")
        assert message in str(error.value)
    assert calls == []


def test_two_entries_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewrite(tmp_path / "model.keras", lambda layer: None, [("config.json", b"{}")])
    with pytest.raises(UserError, match=r"holds 'config\.json'; expected only"):
        check_model_file(tmp_path / "model.keras")


def test_initial_weights_are_read_with_the_same_care(tmp_path):
    rewrite(tmp_path / "model.keras", MODELS["module"][0])
    with pytest.raises(UserError, match=r"refers to os\.system"):
        keras_applications.build("mobilenet", (32, 32, 3), encoder_weights=str(tmp_path / "model.keras"))


def test_an_unchanged_model_is_read(tmp_path):
    rewrite(tmp_path / "model.keras", lambda layer: None)
    assert load_model(tmp_path / "model.keras").count_params() == 3


def npy(path, trap):
    np.save(path, np.array([Payload(trap)] * 8, object).reshape(2, 2, 2), allow_pickle=True)


def pickled(path, trap):
    path.write_bytes(pickle.dumps(Payload(trap)))


@pytest.mark.parametrize("make", [npy, pickled])
@pytest.mark.parametrize("read", [formats.read_header, formats.read_image, formats.read_mask])
def test_pickles_in_npy_files_are_not_read(make, read, tmp_path, trap):
    make(tmp_path / "a.npy", trap)
    with pytest.raises(UserError, match=r"a\.npy: (holds Python objects|cannot be read)") as error:
        read(tmp_path / "a.npy", 3)
    assert "allow_pickle" not in str(error.value)


@pytest.mark.parametrize("array", ["images", "labels", "subject"])
def test_pickles_in_archives_are_not_read(array, tmp_path, trap):
    arrays = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros((2, 1), np.uint8), "subject": np.arange(2)}
    arrays[array] = np.array([Payload(trap)] * 2, object)
    np.savez(tmp_path / "organ.npz", **{f"train_{name}": values for name, values in arrays.items()})
    with pytest.raises(UserError, match=rf"organ\.npz: train_{array} .*(Python objects|type object)"):
        find_cases("medmnist", tmp_path / "organ.npz/train", Labels())


def test_an_archive_writes_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "in" / "a.npz", "a") as archive:
        archive.writestr("../evil.npy", b"x")
        archive.writestr("/evil.npy", b"x")
    assert len(find_cases("medmnist", tmp_path / "in" / "a.npz" / "train")) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npz", "in"]


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png"])
def test_a_table_of_labels_names_files_of_its_folder_only(name, tmp_path):
    (tmp_path / "t.csv").write_text(f"id,label\n{name},1\n")
    with pytest.raises(UserError, match=r"row 2: .* is no plain file name, nor a path below the folder"):
        LabelTable(tmp_path / "t.csv", 2, positional=True).read()


@pytest.mark.parametrize("name", ["{folder}/a.npy", "../scans/a.npy"])
def test_an_index_names_files_anywhere(name, tmp_path):
    """Its author says where scans are; they are opened as scans only, and written to never."""
    for folder in ("scans", "index"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "scans" / "a.npy", np.zeros((2, 2, 2)))
    table = tmp_path / "index" / "i.csv"
    table.write_text(f"id,image\nx,{name.format(folder=tmp_path / 'scans')}\n")
    assert index.read(table)[0].images == (tmp_path / "scans" / "a.npy",)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "a\\b"])
def test_no_id_of_an_index_leads_out_of_the_output(name, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2)))
    (tmp_path / "i.csv").write_text(f"id,image\n{name},a.npy\n")
    with pytest.raises(UserError, match="cannot be part of a file's name"):
        index.read(tmp_path / "i.csv")


@pytest.mark.parametrize(
    "name", ["$x", "a$b^{c$d", r"$\frac{1}{$", r"$\badcommand$", "<b>x</b>", "a\nb", "%s %(x)s {0}"]
)
def test_names_in_pictures_are_letters_only(name, tmp_path):
    """As formulas some of them would end the run."""
    with canvas.chart(tmp_path / "a.png", 3, 2) as (figure, axes):
        axes.set(title=name, xlabel=name)
        axes.plot([0, 1], label=f"x{name}")
        axes.legend()
        canvas.write(figure, 1, 1, name, fontsize=8)
        assert [text.get_parse_math() for text in (axes.title, axes.xaxis.label, figure.texts[0])] == [False] * 3
    plots.confusion_matrix(tmp_path / "b.png", np.eye(2), name, {0: name, 1: "other"})
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size


def test_the_package_unpacks_no_archives_writes_no_html_and_starts_no_programs():
    """What the promises of SECURITY.md rest on; pickle, eval and exec are forbidden in test_architecture.py."""
    forbidden = {"extractall", "unpack_archive", "system", "popen", "Popen", "check_output", "urlopen"}
    forbidden |= {"urlretrieve", "to_html", "yaml_load", "get_file"}
    found = [
        f"{path.relative_to(PACKAGE)}: {node.func.attr}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in forbidden
    ]
    assert found == ["training/distribution/last_words.py: Popen"]  # Python, with a program of ours
    assert not [path for path in PACKAGE.rglob("*.py") if "<html" in path.read_text().lower()]
