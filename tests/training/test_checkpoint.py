import json
import shutil

import pytest
import torch

import saccade
from saccade.errors import Failed
from saccade.training import checkpoint
from saccade.training.checkpoint import newest_checkpoint, remove_checkpoints, save_checkpoint
from saccade.training.optimiser import AdamW


@pytest.fixture
def model():
    return saccade.create_model("vit_nano_patch1_8", depth=1)


@pytest.fixture
def optimiser(model):
    made = AdamW(model, weight_decay=0.1, betas=(0.9, 0.95))
    model.to(torch.bfloat16)
    model(torch.randn(2, 1, 8, 8).to(torch.bfloat16)).sum().backward()
    made.step(1e-3, norm=made.take_gradients(), longest=0.0)
    return made


def save(model, optimiser, run, epoch, facts=None):
    history = [{"epoch": number, "train_loss": 1 / 3} for number in range(epoch + 1)]
    save_checkpoint(run, model, optimiser, history, "abc", facts or {})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_newest_two_are_kept(model, optimiser, tmp_path):
    for epoch in range(8, 12):
        save(model, optimiser, tmp_path, epoch)
    assert names(tmp_path / "checkpoints") == ["epoch-10", "epoch-11"]


def test_what_is_saved_is_a_model_that_is_read_back(model, optimiser, tmp_path):
    save(model, optimiser, tmp_path, 0, {"classes": ["a"]})
    loaded, facts = saccade.load_model(tmp_path / "checkpoints" / "epoch-0")
    assert facts == {"classes": ["a"]}
    assert same(loaded.state_dict(), model.state_dict())


def test_all_that_the_next_step_depends_on_is_read_back(model, optimiser, tmp_path):
    save(model, optimiser, tmp_path, 1)
    found = newest_checkpoint(tmp_path, pytest.fail)
    assert same(found.weights, model.state_dict())
    assert same(found.optimiser, optimiser.state())
    assert found.history == [{"epoch": 0, "train_loss": 1 / 3}, {"epoch": 1, "train_loss": 1 / 3}]
    assert found.data_fingerprint == "abc"


def test_where_no_epoch_was_finished_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path, pytest.fail) is None


FILES = ["model.safetensors", "config.json", "optimiser.safetensors", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_of_a_damaged_one_the_one_before_takes_the_place(model, optimiser, tmp_path, name, how):
    for epoch in range(2):
        save(model, optimiser, tmp_path, epoch)
    file = tmp_path / "checkpoints" / "epoch-1" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    if how == "gone":
        file.unlink()
    said = []
    assert len(newest_checkpoint(tmp_path, said.append).history) == 1
    assert len(said) == 1
    assert "epoch-1 is damaged (" in said[0]
    shutil.rmtree(tmp_path / "checkpoints" / "epoch-0")
    with pytest.raises(Failed, match="none of its 1 checkpoints is whole; begin anew in another folder"):
        newest_checkpoint(tmp_path, said.append)


def test_a_history_that_was_changed_is_noticed(model, optimiser, tmp_path):
    save(model, optimiser, tmp_path, 0)
    file = tmp_path / "checkpoints" / "epoch-0" / "manifest.json"
    written = json.loads(file.read_text())
    written["state"]["history"][0]["train_loss"] = 0.0
    file.write_text(json.dumps(written))
    with pytest.raises(Failed):
        newest_checkpoint(tmp_path, print)


def test_a_damaged_one_is_written_over(model, optimiser, tmp_path):
    for epoch in range(2):
        save(model, optimiser, tmp_path, epoch)
    (tmp_path / "checkpoints" / "epoch-1" / "config.json").write_text("")
    save(model, optimiser, tmp_path, 1)
    assert len(newest_checkpoint(tmp_path, pytest.fail).history) == 2


def kill(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["save_model", "write_tensors", "write_whole", "os.replace", "_sync"])
def test_a_kill_at_any_step_of_a_save_leaves_a_whole_one(model, optimiser, tmp_path, monkeypatch, step):
    for epoch in range(2):
        save(model, optimiser, tmp_path, epoch)
    with monkeypatch.context() as broken:
        # Nothing is tidied up behind a kill.
        broken.setattr(checkpoint.shutil, "rmtree", lambda *arguments, **options: None)
        broken.setattr(f"saccade.training.checkpoint.{step}", kill)
        with pytest.raises(KeyboardInterrupt):
            save(model, optimiser, tmp_path, 2)
    assert len(newest_checkpoint(tmp_path, pytest.fail).history) == (3 if step == "_sync" else 2)
    save(model, optimiser, tmp_path, 2)
    assert names(tmp_path / "checkpoints") == ["epoch-1", "epoch-2"]


def test_a_save_that_fails_leaves_the_ones_before_and_nothing_else(model, optimiser, tmp_path, monkeypatch):
    for epoch in range(2):
        save(model, optimiser, tmp_path, epoch)

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(OSError, match="No space"):
        save(model, optimiser, tmp_path, 2)
    assert names(tmp_path / "checkpoints") == ["epoch-0", "epoch-1"]


def test_removed_they_are_all_gone(model, optimiser, tmp_path):
    save(model, optimiser, tmp_path, 0)
    remove_checkpoints(tmp_path)
    remove_checkpoints(tmp_path)
    assert names(tmp_path) == []
