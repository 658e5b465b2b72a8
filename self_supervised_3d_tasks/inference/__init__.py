"""Predictions of scans of any size with a model of fixed size, on the grid of the scan."""

from self_supervised_3d_tasks.inference.averaging import mean_of, mirrored
from self_supervised_3d_tasks.inference.pieces import Piece
from self_supervised_3d_tasks.inference.scans import PreparedScan, labels_of, mean_pieces, predict_case
from self_supervised_3d_tasks.inference.windows import Predict, predict_in_batches, predictor
