"""What all figures share."""

import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots import canvas

HISTORY = [{"epoch": epoch, "loss": 1 / epoch, "val_loss": 0.1 + abs(epoch - 3)} for epoch in range(1, 6)]


def test_a_failed_figure_leaves_the_old_file(tmp_path):
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), canvas.figure(path, 1, 1):
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.loss_curves(tmp_path / "loss.png", HISTORY)
    assert dict(matplotlib.rcParams) == before
