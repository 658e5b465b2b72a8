"""Defaults that follow from other keys: functions of the keys that were read before."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.data.preparing.scaling import Scaling
from self_supervised_3d_tasks.experiment import registry


def task(dataset_name: str, prediction_architecture: str) -> Literal["classification", "findings", "segmentation"]:
    """Return what is predicted: a class per scan, any number of findings per scan, or a class per voxel."""
    if registry.prediction(prediction_architecture)[0] != "head":
        return "segmentation"
    return "findings" if layouts.get(dataset_name).labels == "findings" else "classification"


def pretraining_lr(known: dict[str, Any]) -> float:
    """Return the ``default_lr`` of the pretext task's class, where it has one, or 1e-3."""
    return getattr(registry.algorithm(known["algorithm"]), "default_lr", 1e-3)


def momentum(known: dict[str, Any]) -> float | None:
    """Return 0.9, the usual momentum of sgd; None for adam, which takes none."""
    return 0.9 if known["optimizer"] == "sgd" else None


def lr_power(known: dict[str, Any]) -> float | None:
    """Return 0.9, the power that poly schedules mostly have; None for the other schedules."""
    return 0.9 if known["lr_schedule"] == "poly" else None


def weight_decay(known: dict[str, Any]) -> float:
    """Return 0.01 for adamw, as in PyTorch, else 0."""
    return 0.01 if known["optimizer"] == "adamw" else 0.0


def weight_decay_form(known: dict[str, Any]) -> Literal["coupled", "decoupled"] | None:
    """Return "coupled", the form that PyTorch has, "decoupled" for adamw, or None without a weight decay."""
    if not known["weight_decay"]:
        return None
    return "decoupled" if known["optimizer"] == "adamw" else "coupled"


def background_share(known: dict[str, Any]) -> tuple[float, float] | None:
    """Return the least and the most of a crop that may be background; None where no level says what background is."""
    return None if known["background_level"] is None else (0.0, 0.85)


def of_layout(read: Callable[[layouts.Layout], Any]) -> Any:
    """Return the field whose default is what ``read`` gives for the layout of the data."""
    return Field(default_factory=lambda known: read(layouts.get(known["dataset_name"])))


def intensity_scaling(known: dict[str, Any]) -> Scaling:
    """Return "window" where there is one, and what the layout has where there is none."""
    return "window" if known["intensity_window"] else layouts.get(known["dataset_name"]).intensity_scaling


def subject_column(known: dict[str, Any]) -> str | None:
    """Return the column that holds subjects in the tables of the layout; None where ``subject_pattern`` finds them."""
    return None if known["subject_pattern"] else layouts.get(known["dataset_name"]).columns[2]


def num_classes(known: dict[str, Any]) -> int:
    """Return the number of findings, or of the classes that the layout has."""
    layout = layouts.get(known["dataset_name"])
    return len(known["class_names"] or ()) if layout.findings else layout.num_classes


def loss(known: dict[str, Any]) -> str:
    """Return the loss that goes with what is predicted."""
    kind = task(known["dataset_name"], known["prediction_architecture"])
    if kind == "classification":
        return "binary_crossentropy" if known["multilabel"] else "categorical_crossentropy"
    return "binary_crossentropy" if kind == "findings" else "dice_crossentropy"


def scores(known: dict[str, Any]) -> list[str]:
    """Return the scores that go with what is predicted."""
    return {
        "classification": ["balanced_accuracy", "roc_auc"],
        "findings": ["mean_auroc", "auroc"],
        "segmentation": ["dice"],
    }[task(known["dataset_name"], known["prediction_architecture"])]
