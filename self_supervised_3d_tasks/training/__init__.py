"""One trainer for pretraining and finetuning."""

from self_supervised_3d_tasks.files.models import load_model, save_model
from self_supervised_3d_tasks.training.callbacks import tensorboard_callbacks
from self_supervised_3d_tasks.training.checkpoints import read_history, restore_best
from self_supervised_3d_tasks.training.trainer import Phase, TrainingData, fit, set_determinism, set_precision

__all__ = [
    "Phase",
    "TrainingData",
    "fit",
    "load_model",
    "read_history",
    "restore_best",
    "save_model",
    "set_determinism",
    "set_precision",
    "tensorboard_callbacks",
]
