from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import load_model, save_model


def make_model():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1), name="head")(inputs)
    return keras.Model(inputs, outputs)


@pytest.fixture
def path(tmp_path):
    save_model(make_model(), tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_round_trip_with_a_checksum_and_no_leftovers(path):
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(load_model(path)(x), make_model()(x))
    assert not getattr(load_model(path), "compiled", False)
    save_model(make_model(), path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.keras", "model.keras.sha256"]


def test_a_trained_model_is_written_without_optimizer_and_loss(path, tmp_path):
    """So that the file has the size of the weights, and loads where the loss or the class is not known."""

    class Pretext(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y - y_pred), axis=-1)

    plain = make_model()
    model = Pretext(plain.input, plain.output)
    model.compile("adam")
    x = np.ones((2, 4), "float32")
    model.fit(x, x[:, :3], verbose=0)
    save_model(model, tmp_path / "trained.keras")
    assert (tmp_path / "trained.keras").stat().st_size == pytest.approx(path.stat().st_size, rel=0.02)
    np.testing.assert_array_equal(load_model(tmp_path / "trained.keras")(x), model(x))
    assert model.compiled


def test_a_file_of_plain_keras_needs_no_checksum(tmp_path):
    make_model().save(tmp_path / "plain.keras")
    assert load_model(tmp_path / "plain.keras").count_params() == 15


@pytest.mark.parametrize("with_checksum", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_file_is_named(path, damage, with_checksum):
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("model.weights.h5").header_offset + 200
        content[start] ^= 0xFF
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b""}.get(damage, content))
    if not with_checksum:
        path.with_name("model.keras.sha256").unlink()
    with pytest.raises(UserError, match=r"model\.keras: (damaged|truncated)"):
        load_model(path)


def test_an_archive_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UserError, match=r"other\.keras: an archive, but not a Keras model"):
        load_model(tmp_path / "other.keras")
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(UserError, match=r"broken\.keras: .*Keras cannot load it"):
        load_model(tmp_path / "broken.keras")


def test_python_code_in_a_file_is_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "lambda.keras")
    with pytest.raises(UserError, match=r"lambda\.keras: .*Lambda"):
        load_model(tmp_path / "lambda.keras")
