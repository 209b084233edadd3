import pytest
import torch

import saccade
from saccade.training import checkpoint
from saccade.training.checkpoint import save_checkpoint, save_final


@pytest.fixture
def model():
    return saccade.create_model("vit_nano_patch1_8", depth=1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(model, tmp_path):
    for epoch in range(8, 12):
        save_checkpoint(model, tmp_path, epoch, {})
    assert names(tmp_path / "checkpoints") == ["epoch-10", "epoch-11"]


def test_what_is_saved_is_read_back(model, tmp_path):
    save_checkpoint(model, tmp_path, 0, {"classes": ["a"]})
    loaded, facts = saccade.load_model(tmp_path / "checkpoints" / "epoch-0")
    assert facts == {"classes": ["a"]}
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in model.state_dict().items())


def test_a_save_that_fails_leaves_the_ones_before(model, tmp_path, monkeypatch):
    for epoch in range(2):
        save_checkpoint(model, tmp_path, epoch, {})

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_model", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(model, tmp_path, 2, {})
    with pytest.raises(OSError, match="No space"):
        save_final(model, tmp_path, {})
    assert names(tmp_path / "checkpoints") == ["epoch-0", "epoch-1"]


def test_behind_the_last_epoch_the_model_lies_in_the_runs_own_folder(model, tmp_path):
    save_checkpoint(model, tmp_path, 0, {})
    save_final(model, tmp_path, {})
    assert names(tmp_path) == ["config.json", "model.safetensors"]
