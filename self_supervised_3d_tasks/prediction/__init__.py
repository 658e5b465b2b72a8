"""New scans through finetuned models: masks on the grids of the scans, or a table of classes or findings."""

from self_supervised_3d_tasks.prediction.base import Predictor
from self_supervised_3d_tasks.prediction.load import load_predictor
from self_supervised_3d_tasks.prediction.scoring import Scoring
