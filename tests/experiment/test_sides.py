"""Names of classes that say left or right."""

import pytest

from self_supervised_3d_tasks.experiment import sides
from tests.experiment.experiment_files import finetune


@pytest.mark.parametrize(
    ("names", "numbers", "expected"),
    [
        (["left parotid", "cord", "right parotid"], [0, 2], [[0, 2]]),
        (["Right-Lung", "Left-Lung"], [0, 1], [[0, 1]]),
        (["kidneyL", "kidneyR", "eye left", "eye right"], [0, 1, 2, 3], [[0, 1], [2, 3]]),
        (["lung (L)", "lung (R)", "left1"], [0, 1, 2], [[0, 1]]),
        (["rightVentricle", "myocardium", "leftVentricle"], [0, 2], [[0, 2]]),
        (["leftlung", "rightlung", "LKidney", "RKidney"], [0, 1, 2, 3], [[0, 1], [2, 3]]),
        (["LT_KIDNEY", "RT_KIDNEY", "Parotid Lt", "Parotid Rt"], [0, 1, 2, 3], [[0, 1], [2, 3]]),
        (["ctx-lh-insula", "ctx-rh-insula", "femur_sin", "femur_dex"], [0, 1, 2, 3], [[0, 1], [2, 3]]),
        (["pulmo dextra", "pulmo sinistra", "Left-Cerebellum-Cortex"], [0, 1, 2], [[0, 1]]),
        (["left atrium"], [0], []),
        (["sinus", "index", "dextrose", "LVEF", "ALT", "sort", "RHS of ALS"], [], []),
        (["cleft", "bright spot", "upright", "L1", "RV", "LV", "rl", "colour", "Copyright"], [], []),
    ],
)
def test_names_that_say_left_or_right(tmp_path, names, numbers, expected):
    names = [*names, "other"]
    experiment = finetune(tmp_path, class_names=names, num_classes=len(names))
    assert sides.sided(experiment) == [names[number] for number in numbers]
    assert sides.pairs(experiment) == expected
