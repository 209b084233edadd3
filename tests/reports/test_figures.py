import numpy as np
from PIL import Image

from saccade.reports.basis import basis
from saccade.reports.curves import curves
from saccade.reports.figures import MARKERS, accuracy_cost
from saccade.reports.rows import rows

ACCURACIES = {"softmax": 0.92, "linear": 0.915, "$x_1$": 0.91, "fourier": 0.7, "lambda": 0.95}
COSTS = {"linear": 0.8, "fourier": 0.6, "lambda": 1.9, "$x_1$": 0.99}


def drawn(records, folder):
    return accuracy_cost(rows(records), basis(records), folder)


def test_a_comparison_is_drawn_as_png_and_svg(made, tmp_path):
    png, svg = drawn(made.whole(ACCURACIES, costs=COSTS), tmp_path)
    assert (png.name, svg.name) == ("accuracy-cost.png", "accuracy-cost.svg")
    with Image.open(png) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (832, 1280, 3)
    assert (pixels == 255).all(-1).mean() > 0.8
    assert "<svg" in svg.read_text(encoding="utf-8")[:1000]


def test_one_seed_and_softmax_alone_are_drawn(made, tmp_path):
    assert drawn(made.whole(ACCURACIES, seeds=1, costs=COSTS), tmp_path)
    assert drawn(made.whole({"softmax": 0.92}), tmp_path)


def test_without_times_there_is_no_picture(made, tmp_path):
    assert drawn([made.accuracy("softmax"), made.accuracy("linear")], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_every_verdict_has_a_sign_of_its_own():
    signs = [(marker, filled) for marker, _, filled in MARKERS.values()]
    assert len(set(signs)) >= len(signs) - 1
    for verdict in ("baseline", "better", "not worse", "undecided", "worse", "too few seeds", "incomplete", "diverged"):
        assert verdict in MARKERS


def history(epochs):
    return [
        {"epoch": epoch, "eval_top1": 50.0 + epoch, "train_seconds": 12.0, "data_seconds": 0.5, "lr": 1e-3}
        for epoch in range(epochs)
    ]


def test_a_run_is_drawn_however_short(tmp_path):
    for epochs in (1, 2, 100):
        (path,) = curves(history(epochs), tmp_path)
        with Image.open(path) as picture:
            assert picture.size == (1440, 576)
    assert curves([], tmp_path) == []
