"""The models that predict together: what each brings, what they must have in common, and which share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from self_supervised_3d_tasks import inference
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import pretrained, sides
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.prediction.choice import chosen


@dataclass(frozen=True)
class Member:
    """A finetuned model.

    Attributes:
        run: Its run folder.
        name: Folder name of its job.
        reason: Why it was taken.
        experiment: Keys of the run.
        model: It gives logits.
    """

    run: Path
    name: str
    reason: str
    experiment: FinetuneExperiment
    model: Any

    @property
    def path(self) -> Path:
        """The file of the model."""
        return RunFolder(self.run).job(self.name).model

    def predict(self, mirror: Sequence[int]) -> inference.Predict:
        """Return the function from a batch of prepared images to probabilities, averaged over flips of some axes."""
        predict, experiment = task_of(self.experiment).predictor(self.model), self.experiment
        return inference.mirrored(
            predict, mirror, swaps=sides.swaps(experiment), left_right_axis=experiment.left_right_axis
        )


@dataclass(frozen=True)
class Group:
    """Models that see a scan in the same way, so that each of its windows is prepared and blended once for all.

    Attributes:
        experiment: Keys of the first of them.
        predict: From a batch of images to the mean of their probabilities.
        weight: Their share of all models.
    """

    experiment: FinetuneExperiment
    predict: inference.Predict
    weight: float


def load_members(run: Path, job: str | None, ensemble: str | None, overrides: Sequence[str]) -> list[Member]:
    """Load the models of a run, see `choice.chosen`.

    Args:
        run: Run folder of a finetuning.
        job: Name of the only one.
        ensemble: Which ones.
        overrides: ``key=value`` items for the run's experiment.

    Raises:
        UserError: Not the run folder of a finetuning, no such finished job, or a damaged model file.
    """
    folder = RunFolder(run)
    if not folder.jobs.is_dir():
        raise UserError(f"{run}: not the run folder of a finetuning; give the folder that finetune.py printed")
    experiment = load_experiment("finetune", folder.config, overrides)
    pretrained.warn_of_preparation(experiment, str(run))
    names, reason = chosen(run, job, ensemble)
    return [Member(run, name, reason, experiment, _load(folder.job(name).model, experiment)) for name in names]


def _load(path: Path, experiment: FinetuneExperiment) -> Any:
    """Return the model of a job; `UserError` if it is not one of this run, or cannot predict."""
    model = load_model(path)
    shape = experiment.input_shape
    outputs = (*(shape[:-1] if experiment.task == "segmentation" else ()), experiment.num_classes)
    for what, received, expected in (("images", model.input_shape, shape), ("outputs", model.output_shape, outputs)):
        if received != (None, *expected):
            raise UserError(
                f"{path}: expected a model with {what} {expected}, as config.json of the run says, received "
                f"{received}; put the model of this run back, or leave out --set data_dim and num_classes"
            )
    for variable in model.variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise UserError(
                f"{path}: expected weights that are numbers, but {variable.path} has NaN or infinite ones; predict "
                "with another job (--job), or train this one again"
            )
    return model


def check_agreement(members: Sequence[Member]) -> None:
    """Raise `UserError` for models that do not predict the same from the same channels."""
    first, *others = members
    expected = _predicts(first.experiment)
    for other in others:
        for key, value in _predicts(other.experiment).items():
            if value != expected[key]:
                raise UserError(
                    f"{key}: {first.run} has {expected[key]}, but {other.run} has {value}; models that are averaged "
                    "must predict the same from the same channels, so leave one of the runs out"
                )


def grouped(members: Sequence[Member], mirror: Sequence[int]) -> list[Group]:
    """Return the groups of models, in the order of their first members.

    Args:
        members: The models.
        mirror: Axes over whose flips each of them is averaged.
    """
    together: list[list[Member]] = []
    for member in members:
        alike = (group for group in together if _sees(group[0].experiment) == _sees(member.experiment))
        found = next(alike, None)
        if found is None:
            together.append([member])
        else:
            found.append(member)
    return [
        Group(
            group[0].experiment,
            inference.mean_of([member.predict(mirror) for member in group]),
            len(group) / len(members),
        )
        for group in together
    ]


def _sees(experiment: FinetuneExperiment) -> tuple:
    return experiment.preprocessing, experiment.overlap


def _predicts(experiment: FinetuneExperiment) -> dict[str, Any]:
    """Return by key what models that are averaged must have in common."""
    found = {key: getattr(experiment, key) for key in ("num_classes", "class_names", "label_map", "multilabel")}
    found |= {key: getattr(experiment, key) for key in ("number_channels", "channel_suffixes")}
    sigmoids = experiment.task != "segmentation" and experiment.loss == "binary_crossentropy"
    return {
        "prediction_architecture": experiment.task,
        "data_dim": f"{experiment.rank} axes",
        "dataset_name": f"files that end in {' or '.join(experiment.layout.suffixes) or '.npz'}",
        **found,
        "loss": "a sigmoid per output" if sigmoids else "one softmax",
    }
