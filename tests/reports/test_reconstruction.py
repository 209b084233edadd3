"""The picture of reconstructions holds the pixels themselves."""

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.models.sizes import create_model
from saccade.reports.reconstruction import reconstruction_figure
from saccade.training.reconstructed import Normalisation, reconstruct
from saccade.training.shown import Shown

SCALE = 20


def shown(labels=("softmax", "linear"), channels=1, norm_pix_loss=False, names=("7", "8"), simmim=()):
    images = torch.randint(0, 256, (2, channels, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    models = {}
    for label in labels:
        options = {"in_chans": channels, "norm_pix_loss": norm_pix_loss}
        options["objective"] = "simmim" if label in simmim else "mae"
        model = create_model("mae_nano_patch1_8", label, depth=1, patch_size=2, **options)
        models[label] = reconstruct(model, images, Normalisation((0.5,) * channels, (0.5,) * channels))
    return Shown(list(names), images, 0.75, models)


def places(path, image):
    """Where in the file a picture stands, enlarged by whole pixels: (left, top), each."""
    canvas = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    wanted = image.expand(3, -1, -1).numpy().repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(canvas[:, ::1, ::1], wanted.shape[1:], axis=(1, 2))
    # The corners first: comparing all pixels at every place takes long.
    corners = (
        windows[:, :, :, [0, 0, -1, -1], [0, -1, 0, -1]] == wanted[:, None, None][..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )
    likely = np.argwhere(corners.all(axis=(0, 3)))
    return [(int(x), int(y)) for y, x in likely if (windows[:, y, x] == wanted).all()]


@pytest.mark.parametrize("channels", [1, 3])
def test_originals_and_reconstructions_stand_in_rows_and_columns(tmp_path, channels):
    what = shown(channels=channels)
    reconstruction_figure(what, tmp_path / "a.png")
    lefts, tops = [], []
    for images in (what.images, what.models["softmax"].pasted, what.models["linear"].pasted):
        (one,), (another,) = places(tmp_path / "a.png", images[0]), places(tmp_path / "a.png", images[1])
        assert one[0] == another[0]
        lefts.append(one[0])
        tops.append((one[1], another[1]))
    assert lefts == sorted(set(lefts))
    assert len(set(tops)) == 1
    assert tops[0][0] < tops[0][1]


@pytest.mark.parametrize(("visible", "pasted", "predicted"), [("original", 1, 0), ("predicted", 0, 1), ("both", 1, 1)])
def test_visible_patches_are_the_originals_or_predicted_or_both(tmp_path, visible, pasted, predicted):
    what = shown(["softmax"])
    reconstruction_figure(what, tmp_path / "a.png", visible=visible)
    made = what.models["softmax"]
    assert len(places(tmp_path / "a.png", made.pasted[0])) == pasted
    assert len(places(tmp_path / "a.png", made.predicted[0])) == predicted


def test_hidden_patches_have_a_colour_that_no_grey_picture_has(tmp_path):
    what = shown(["softmax"])
    reconstruction_figure(what, tmp_path / "a.png")
    canvas = np.asarray(Image.open(tmp_path / "a.png"))
    # Of four rows and columns of patches in each of two pictures, 12 are hidden.
    blue = (canvas == (150, 166, 192)).all(axis=2).sum()
    assert blue == 2 * 12 * (2 * SCALE) ** 2


def words(monkeypatch, tmp_path, what, **options):
    """All that is written into the picture."""
    from PIL import ImageDraw

    written = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, place, text, **options: written.append(text))
    reconstruction_figure(what, tmp_path / "a.png", **options)
    return " ".join(written)


def test_the_loss_stands_below_beside_that_of_the_mean(monkeypatch, tmp_path):
    what = shown(["softmax"])
    text = words(monkeypatch, tmp_path, what)
    made = what.models["softmax"]
    for number in range(2):
        assert f"loss {made.loss[number]:.3f} mean {made.mean_loss[number]:.3f}" in text
    assert "masked, 75%" in text
    assert "norm_pix_loss" not in text


@pytest.mark.parametrize(
    ("simmim", "said"),
    [
        ((), "loss: mean squared error over the hidden patches;"),
        (("softmax", "linear"), "loss: mean absolute error over the hidden patches;"),
        (("linear",), "loss: mean squared error (absolute: linear) over the hidden patches;"),
    ],
)
def test_which_error_it_is_is_said(monkeypatch, tmp_path, simmim, said):
    assert said in words(monkeypatch, tmp_path, shown(simmim=simmim))


def test_borrowed_means_are_said(monkeypatch, tmp_path):
    text = words(monkeypatch, tmp_path, shown(["softmax"], norm_pix_loss=True))
    assert "these two are the original's here" in text.replace("  ", " ")


def test_long_names_do_not_leave_the_picture(tmp_path):
    name = "a-very-long-name-of-a-picture-that-goes-on-and-on.png"
    what = shown(["softmax"], names=(name, "8"))
    reconstruction_figure(what, tmp_path / "a.png")
    canvas = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert (canvas[:, -5:] == 255).all()
    assert canvas.shape[1] < 900


def test_another_word_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be original, predicted or both"):
        reconstruction_figure(shown(["softmax"]), tmp_path / "a.png", visible="all")
