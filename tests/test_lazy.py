"""Libraries that load when they are first used, in a command without what only unused parts of them need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from self_supervised_3d_tasks import lazy

LIBRARY = """\
try:
    import ss3d_part
except ImportError:
    ss3d_part = None
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Put a library, and a module that it loads if it is there, where Python finds them."""
    (tmp_path / "ss3d_library.py").write_text(LIBRARY)
    (tmp_path / "ss3d_part.py").write_text("number = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(lazy._FOR_UNUSED_PARTS, "ss3d_library", ("ss3d_part",))
    monkeypatch.setattr(lazy, "_sparing", lazy.threading.Event())
    yield lazy.load("ss3d_library")
    for name in ("ss3d_library", "ss3d_part"):
        sys.modules.pop(name, None)


def test_a_library_loads_whole_where_nobody_asked_for_less(library):
    assert library.ss3d_part.number == 3


def test_what_was_spared_can_be_loaded_afterwards(library):
    lazy.spare_unused_parts()
    assert library.ss3d_part is None
    import ss3d_part

    assert ss3d_part.number == 3


def test_what_somebody_has_loaded_is_not_spared(library):
    import ss3d_part

    lazy.spare_unused_parts()
    assert library.ss3d_part is ss3d_part


@pytest.mark.slow  # loads TensorFlow and JAX
def test_the_backend_is_not_spared():
    """TensorFlow loads Keras, which is left half loaded where its backend is missing."""
    pytest.importorskip("jax")
    program = """
from self_supervised_3d_tasks import lazy
lazy.spare_unused_parts()
print(lazy.keras.layers.Dropout(0.5, seed=1).rate, lazy.keras.backend.backend())
"""
    run = {"capture_output": True, "text": True, "check": True}
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ | {"KERAS_BACKEND": "jax"}, **run)
    assert ended.stdout == "0.5 jax\n"


@pytest.mark.slow  # loads TensorFlow, three seconds on an idle core
def test_a_command_loads_tensorflow_and_keras_without_what_only_unused_parts_need():
    program = """
import sys
from self_supervised_3d_tasks import lazy
lazy.spare_unused_parts()
lazy.keras.layers.Dense(1)
print(sorted({"IPython", "jax", "matplotlib.pyplot", "pandas", "sklearn"} & sys.modules.keys()))
import sklearn
print(float(lazy.keras.ops.sum(lazy.tf.ones(3))))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["[]", "3.0"]
