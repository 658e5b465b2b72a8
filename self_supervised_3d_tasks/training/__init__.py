"""One trainer for pretraining and finetuning."""

from self_supervised_3d_tasks.training.callbacks import tensorboard_callbacks
from self_supervised_3d_tasks.training.checkpoints import read_history, restore_best
from self_supervised_3d_tasks.training.distribution import Distribution, processes
from self_supervised_3d_tasks.training.distribution import start as start_distribution
from self_supervised_3d_tasks.training.graphs import own_graphs
from self_supervised_3d_tasks.training.trainer import (
    Phase,
    TrainingData,
    check_compilation,
    check_precision,
    fit,
    set_determinism,
    set_precision,
)
