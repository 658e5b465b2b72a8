"""Keys of the augmentation: what they come to, and what is refused or warned of where labels tell left from right."""

from __future__ import annotations

import pytest

from self_supervised_3d_tasks.ops.augment import Rules
from tests.experiment.experiment_files import ARCHIVE, assert_refused, classify, finetune, train

EARS = {"class_names": ["background", "Parotid_L", "Parotid_R"]}
SLICES = {"dataset_name": "volumes", "data_dim": [32, 32]}
PICTURES = {"dataset_name": "images", "data_dim": 32}


@pytest.mark.parametrize(
    ("load", "keys", "rules"),
    [
        (train, {}, None),
        (train, {"algorithm": "exemplar", "augment": True}, Rules()),
        (train, {"augment_zoom_only": True}, Rules(zoom_only=True)),
        (
            train,
            {"algorithm": "exemplar", "augment": True, "augment_flip_axes": [2, 1], "augment_degrees": 15},
            Rules(flip_axes=(2, 1), degrees=15),
        ),
        (finetune, {}, None),
        (finetune, {"augment": True, "augment_flip_axes": []}, Rules(flip_axes=())),
        (finetune, {"augment": True, "augment_swap_labels": [[2, 1]]}, Rules(swap_labels=((2, 1),))),
        (finetune, {"augment": True, **SLICES, "augment_degrees": 180}, Rules(degrees=180)),
        (finetune, {"augment": True, **PICTURES}, Rules(left_right_axis=1)),
        (classify, {"augment": True, **PICTURES}, Rules(left_right_axis=1)),
        (classify, {"augment": True, **ARCHIVE, "data_dim": [32, 32]}, Rules(left_right_axis=1)),
        (classify, {"augment": True, **ARCHIVE, "data_dim": [32, 32, 32]}, Rules()),
    ],
)
def test_keys_become_rules(tmp_path, load, keys, rules):
    assert load(tmp_path, **keys).augment_rules == rules


@pytest.mark.parametrize("load", [train, finetune])
@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"augment_degrees": 10}, ['augment_degrees: says what augment does, which is off; set "augment": true']),
        ({"augment_flip_axes": [], "augment_zoom_only": True}, ["augment_flip_axes", "which is off", "remove"]),
        ({"augment": True, "augment_flip_axes": [0, 3]}, ["augment_flip_axes", "[0, 1, 2], each once", "[0, 3]"]),
        ({"augment": True, "augment_flip_axes": [1, 1]}, ["augment_flip_axes", "[0, 1, 2], each once", "[1, 1]"]),
        ({"augment": True, "augment_flip_axes": [-1]}, ["augment_flip_axes", "greater than or equal to 0", "-1"]),
        ({"augment": True, "augment_degrees": 181}, ["augment_degrees", "less than or equal to 180", "181"]),
        ({"augment": True, "augment_degrees": -1}, ["augment_degrees", "greater than or equal to 0", "-1"]),
    ],
)
def test_a_mistake_names_key_value_and_remedy(tmp_path, load, keys, parts):
    assert_refused(load, tmp_path, {"algorithm": "cpc"} | keys, parts)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"augment": False, "augment_swap_labels": [[1, 2]]}, ["augment_swap_labels", "augment does, which is off"]),
        ({"augment_swap_labels": [[0, 1]]}, ["augment_swap_labels", "greater than or equal to 1"]),
        ({"augment_swap_labels": [[1, 2, 3]]}, ["augment_swap_labels", "at most 2 items"]),
        ({"augment_swap_labels": [[1, 3]]}, ["augment_swap_labels", "from 1 to 2", "[[1, 3]]"]),
        ({"augment_swap_labels": [[1, 2], [2, 1]]}, ["augment_swap_labels", "each in one pair", "[[1, 2], [2, 1]]"]),
        ({"augment_swap_labels": [[1, 1]]}, ["augment_swap_labels", "each in one pair", "[[1, 1]]"]),
        (
            {"augment_swap_labels": [[1, 2]], "augment_flip_axes": [1, 2]},
            ["augment_swap_labels, augment_flip_axes", "axis 0", "not flipped"],
        ),
        (EARS, ["augment, class_names", "flips of axis 0", "Parotid_L, Parotid_R;", "as [[1, 2]],", "leave 0 out of"]),
        (EARS | {"augment_flip_axes": [0]}, ["augment, class_names", "flips of axis 0"]),
        (EARS | PICTURES, ["augment, class_names", "flips of axis 1", "leave 1 out of augment_flip_axes"]),
        (EARS | SLICES, ["augment, class_names", "flips of axis 0"]),
    ],
)
def test_a_mistake_about_sides_names_key_value_and_remedy(tmp_path, keys, parts):
    assert_refused(finetune, tmp_path, {"augment": True} | keys, parts)


def test_sides_of_whole_scans_cannot_be_exchanged(tmp_path):
    sides = {"augment": True, "class_names": ["none", "left knee", "right knee"]}
    assert_refused(classify, tmp_path, sides, ["augment, class_names", "right knee; leave 0 out of augment_flip_axes"])
    assert classify(tmp_path, **sides, augment_flip_axes=[1, 2], augment_degrees=20).augment
    assert_refused(
        classify, tmp_path, sides | {"augment_swap_labels": [[1, 2]]}, ["augment_swap_labels", "for masks only"]
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"augment_swap_labels": [[1, 2]]},
        {"augment_swap_labels": []},
        {"augment_flip_axes": [1, 2]},
        {"augment_flip_axes": []},
        {"augment": False, "augment_degrees": None},
    ],
)
def test_sides_are_no_mistake_where_they_stay_or_their_labels_follow(tmp_path, keys, caplog):
    assert finetune(tmp_path, **EARS | {"augment": True, "augment_degrees": 15} | keys).class_names
    assert caplog.text == ""


def test_turns_that_exchange_the_sides_are_warned_of(tmp_path, caplog):
    keys = EARS | {"augment": True, "augment_swap_labels": [[1, 2]]}
    finetune(tmp_path, **keys)
    assert "augment_degrees: turns by up to 180 degrees bring left to where right was" in caplog.text
    caplog.clear()
    finetune(tmp_path, **keys, augment_degrees=90)
    finetune(tmp_path, **keys | SLICES)
    finetune(tmp_path, augment=True)
    assert caplog.text == ""
