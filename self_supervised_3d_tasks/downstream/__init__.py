"""What is predicted downstream: masks, classes or findings. `base` says what a task brings to the sweep."""

from self_supervised_3d_tasks.downstream.base import DownstreamTask
from self_supervised_3d_tasks.downstream.classification import ClassificationTask
from self_supervised_3d_tasks.downstream.findings import FindingsTask
from self_supervised_3d_tasks.downstream.segmentation import SegmentationTask
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment

TASKS = {"classification": ClassificationTask, "findings": FindingsTask, "segmentation": SegmentationTask}


def task_of(experiment: FinetuneExperiment) -> DownstreamTask:
    """Return the task that the experiment's kind of label makes it."""
    return TASKS[experiment.task](experiment)
