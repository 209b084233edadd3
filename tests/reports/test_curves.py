"""Curves of a pre-training name the constants that its loss is held against."""

import pytest
from matplotlib.axes import Axes

from saccade.reports.curves import loss_curves

EPOCH = {
    "epoch": 0,
    "train_loss": 0.6,
    "eval_loss": 0.5,
    "eval_baseline_loss": 1.0,
    "eval_mean_picture_loss": 0.8,
    "train_seconds": 2.0,
    "data_seconds": 0.1,
}


@pytest.mark.parametrize("average", ["mean", "median"])
def test_the_constants_are_called_what_they_are(tmp_path, monkeypatch, average):
    words = []
    monkeypatch.setattr(Axes, "annotate", lambda self, text, *place, **looks: words.append(text))
    (path,) = loss_curves([EPOCH], tmp_path, average=average)
    assert path.is_file()
    assert words == [f"predicting the {average}", f"predicting the {average} picture"]
