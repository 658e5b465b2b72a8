"""What a sweep will do, from an index of empty files: no voxel is read."""

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.finetuning.plan import plan
from tests.experiment.experiment_files import finetune

KEYS = {"dataset_name": "index", "epochs_initialized": 0, "epochs_warmup": 0, "exp_splits": [100], "repetitions": 1}


@pytest.fixture
def make(tmp_path):
    """Plan a sweep on an index with rows of name, subject, whether there is a mask, and label."""

    def make(rows, **keys):
        lines = ["id,subject,image,mask,label"]
        for name, subject, masked, label in rows:
            for file in (f"{name}.npy", f"{name}_m.npy"):
                (tmp_path / file).touch()
            lines.append(f"{name},{subject},{name}.npy,{f'{name}_m.npy' if masked else ''},{label}")
        (tmp_path / "index.csv").write_text("\n".join(lines))
        return plan(finetune(tmp_path, **KEYS | {"data_dir_train": str(tmp_path / "index.csv")} | keys))

    return make


def test_rows_without_masks_are_left_out_of_a_segmentation(make):
    found = make([(f"c{n}", f"p{n}", n < 6, "") for n in range(10)])
    (job,) = found.jobs
    assert sorted(case.name for part in ("train", "validation", "test") for case in getattr(job.split, part)) == [
        f"c{n}" for n in range(6)
    ]


def test_a_label_column_makes_a_classification(make):
    found = make([(f"c{n}", f"p{n}", False, n % 2 if n else "") for n in range(21)], prediction_architecture="softmax")
    assert {case.label for case in found.cases} == {0, 1} and len(found.cases) == 20
    assert len(found.record()["labels"]) == 20


def test_two_subjects_are_enough_without_validation_scans(make, caplog):
    rows = [("a", "p1", True, ""), ("b", "p2", True, ""), ("c", "p3", False, ""), ("d", "p4", False, "")]
    with pytest.raises(UserError, match="2 subjects cannot be split into train, validation and test"):
        make(rows)
    found = make(rows, val_split=0, test_split=0.5)
    (job,) = found.jobs
    assert len(job.split.test) == 1 and job.split.validation == job.split.train != job.split.test
    assert "val_split: 0, so that the epoch is chosen by the loss of the training scans" in caplog.text


def test_one_persons_scans_on_two_sides_are_told_once(make, caplog):
    rows = [(f"p{n // 2}_{side}", f"p{n // 2}_{side}", True, "") for n, side in enumerate("LR" * 10)]
    make(rows, exp_splits=[100, 50], repetitions=2)
    assert sum("look like those of one person" in record.getMessage() for record in caplog.records) == 1
    caplog.clear()
    make([(name, name[:2], masked, label) for name, _, masked, label in rows])
    assert "look like those of one person" not in caplog.text


def test_the_learning_rate_rises_within_the_shortest_phase(make):
    rows = [(f"s{number}", f"p{number}", True, "") for number in range(6)]
    keys = {"epochs_random": 3, "batch_size": 1, "val_split": 0.0, "test_split": 0.5}
    assert [len(job.split.train) for job in make(rows, **keys, lr_warmup_steps=8).jobs] == [3]
    with pytest.raises(UserError, match="lr_warmup_steps: 9 must be below the number of updates, .* has 9"):
        make(rows, **keys, lr_warmup_steps=9)
