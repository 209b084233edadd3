"""Files given one by one are prepared as a data set's."""

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.loose import load_pictures
from saccade.data.sources import load_data


def picture(path, size, seed, mode="RGB"):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize(size).convert(mode).save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_pictures_are_those_of_a_data_set(tmp_path, channels, crop_pct):
    for part in ("train", "val", "test"):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            for number, size in enumerate([(40, 24), (24, 24), (30, 50)]):
                picture(
                    tmp_path / part / label / f"{number}.png", size, seed=number + 10 * (label == "b") + 20 * len(part)
                )
    data = load_data(tmp_path, img_size=(16, 12), crop_pct=crop_pct, in_chans=channels)
    expected = data.test.images.centre(torch.arange(6), (16, 12))
    paths = [tmp_path / "test" / label / f"{number}.png" for label in "ab" for number in range(3)]
    found = load_pictures(paths, (16, 12), channels, crop_pct)
    # The order in a data set is its own.
    assert {tuple(one.flatten().tolist()) for one in found} == {tuple(one.flatten().tolist()) for one in expected}


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture: no JPEG"):
        load_pictures([tmp_path / "a.png"], (8, 8), 1)
    with pytest.raises(ValueError, match=r"b\.png: there is no such picture"):
        load_pictures([tmp_path / "b.png"], (8, 8), 1)
    with pytest.raises(ValueError, match="1 channel or 3, and the model takes images of 5"):
        load_pictures([picture(tmp_path / "c.png", (8, 8), 0)], (8, 8), 5)
