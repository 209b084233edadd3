"""A saved model comes back as it was; a broken, foreign or untrusted one is refused in a sentence."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from saccade.models import create_model
from saccade.models.weights import load_model, save_model

MINE = """
from saccade.attention.softmax import Softmax
class Mine(Softmax):
    pass
"""


@pytest.fixture
def saved(tmp_path):
    model = create_model("vit_nano_patch1_8", seed=5)
    save_model(model, tmp_path / "kept", {"test_top1_percent": 91.5})
    return tmp_path / "kept"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("file", ["", "model.safetensors", "config.json"])
def test_a_model_comes_back_as_it_was(saved, file):
    model = create_model("vit_nano_patch1_8", seed=5)
    again, facts = load_model(saved / file)
    assert facts == {"test_top1_percent": 91.5}
    assert (again.name, again.config) == (model.name, model.config)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_its_dtype_comes_back(tmp_path):
    model = create_model("vit_nano_patch1_8").bfloat16()
    save_model(model, tmp_path)
    again, _ = load_model(tmp_path)
    assert {key: value.dtype for key, value in again.state_dict().items()} == {
        key: value.dtype for key, value in model.state_dict().items()
    }


def test_a_class_of_one_s_own_needs_trust(tmp_path, monkeypatch):
    (tmp_path / "mine_of_test_weights.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    save_model(create_model("vit_nano_patch1_8", "mine_of_test_weights:Mine(qk_norm=True)"), "kept")
    with pytest.raises(ValueError, match="--trust-class mine_of_test_weights:Mine"):
        load_model("kept")
    model, _ = load_model("kept", trust_class=["mine_of_test_weights:Mine"])
    assert type(model.blocks[0].attn).__name__ == "Mine"


def test_saving_again_replaces_and_leaves_no_other_file(saved):
    save_model(create_model("vit_nano_patch1_8", seed=6), saved)
    assert sorted(os.listdir(saved)) == ["config.json", "model.safetensors"]
    assert torch.equal(load_model(saved)[0].head.weight, create_model("vit_nano_patch1_8", seed=6).head.weight)


def test_a_kill_between_the_two_files_is_noticed(saved, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("saccade.models.weights.write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(create_model("vit_nano_patch1_8", seed=6), saved)
    with pytest.raises(ValueError, match="is not the file that"):
        load_model(saved)


def test_a_failure_while_writing_keeps_the_old_weights(saved, monkeypatch):
    def fails(state, path):
        raise OSError("no space left on device")

    monkeypatch.setattr("saccade.models.weights.save_file", fails)
    with pytest.raises(OSError, match="no space"):
        save_model(create_model("vit_nano_patch1_8", seed=6), saved)
    assert sorted(os.listdir(saved)) == ["config.json", "model.safetensors"]
    assert load_model(saved)[1] == {"test_top1_percent": 91.5}


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "last.ckpt"])
def test_a_pickle_is_refused_unread(tmp_path, name):
    torch.save({}, tmp_path / name)
    with pytest.raises(ValueError, match=r"is a pickle, which can run code.*model\.safetensors"):
        load_model(tmp_path / name)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no saved model: .*model\.safetensors is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "vit_base"}, "was not written by saccade"),
        ({"layout": 2}, "layout 2"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"config": 3}, "was not written by saccade"),
        ({"config": {"depth": "x"}}, "depth"),
        ({"config": {"depth": 1, "attention": "softmax", "swin": 1}}, "swin"),
        ({"config": {"depth": 1, "attention": "os:system"}}, "--trust-class os:system"),
        ({"config": {"attention": "os:system"}}, "the depth, a whole number"),
    ],
    ids=str,
)
def test_a_config_that_is_not_ours_is_refused(saved, changes, words):
    change_config(saved, **changes)
    with pytest.raises(ValueError, match=words):
        load_model(saved)


def test_a_config_that_is_no_json_is_refused(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        load_model(saved)


def rewrite(folder, change):
    """Weights that were changed by a program which keeps the sum right."""
    import hashlib

    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    change_config(folder, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("head.bias"), r"head\.bias is missing"),
        (lambda state: state.update(more=torch.ones(1)), "more is unknown"),
        (lambda state: state.update({"head.bias": torch.ones(3)}), r"head\.bias is \(3,\), not \(10,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=words):
        load_model(saved)


def test_weights_that_are_no_safetensors_are_refused(saved):
    import hashlib

    (saved / "model.safetensors").write_bytes(b"nothing")
    change_config(saved, weights_sha256=hashlib.sha256(b"nothing").hexdigest())
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_model(saved)
