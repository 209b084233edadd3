import dataclasses
import json
import math
import re
import tomllib

import pytest
import torch

import saccade
from saccade.data.sources import load_data
from saccade.errors import Diverged
from saccade.training import loop, objective
from saccade.training.progress import Silent
from saccade.training.recipe import Recipe, recipe_from_toml, with_values

BASE = {
    "model.options": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.lr": 3e-3,
    "train.logging_step": 2,
}
EVERYTHING_RANDOM = {
    "model.options": {"embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path_rate": 0.3, "proj_drop_rate": 0.1},
    "augment": {"crop_padding": 1, "flip": 0.5, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0},
    "train.label_smoothing": 0.1,
}
BREAKS_AT_STEP_6 = """
from saccade.attention.softmax import Softmax

class Breaks(Softmax):
    bad = False

    def advance(self, step, generator):
        self.bad = step >= 6 and self.layer == 1

    def mix(self, q, k, v, patches):
        return super().mix(q, k, v, patches) * (float("nan") if self.bad else 1.0)
"""


@pytest.fixture(scope="module")
def digits():
    """64 training images, so an epoch of the base recipe has four steps, and 40 in each of the other parts."""
    loaded = load_data("digits", img_size=(8, 8), limit=64)
    few = torch.arange(40)
    return dataclasses.replace(loaded, validation=loaded.validation.select(few), test=loaded.test.select(few))


def recipe(changed=(), /, **values):
    return with_values(Recipe(), BASE | dict(changed) | values)


def run(digits, changed=(), /, device="cpu", **options):
    return loop.train(recipe(changed), data=digits, device=device, **options)


def without_seconds(row):
    return {key: value for key, value in row.items() if "seconds" not in key and key != "peak_bytes"}


class Heard(Silent):
    def __init__(self):
        self.lines, self.steps = [], []

    def say(self, line):
        self.lines.append(line)

    def advance(self, done, total):
        self.steps.append((done, total))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bits(digits, dtype):
    changed = EVERYTHING_RANDOM | {"train.dtype": dtype}
    first = run(digits, changed)
    # What torch's generator did in between must not matter.
    torch.rand(7)
    second = run(digits, changed)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    assert [without_seconds(row) for row in first.history] == [without_seconds(row) for row in second.history]
    assert without_seconds(first.result) == without_seconds(second.result)


@pytest.mark.parametrize("what", ["start", "order", "dropout", "depth"])
def test_another_seed_changes_each_random_thing(digits, what):
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    options |= {"dropout": {"proj_drop_rate": 0.5}, "depth": {"drop_path_rate": 0.5}}.get(what, {})
    changed = {"model.options": options, "train.epochs": 1, "train.batch_size": 64}
    seen = {}
    for seed in (0, 1):
        trained = run(digits, changed | {"train.seed": seed})
        seen[seed] = trained.history[0]["train_loss"]
    assert seen[0] != seen[1]


def test_training_lowers_the_loss_and_learns(digits):
    trained = run(digits, {"model.attention": "linformer", "train.epochs": 12})
    losses = [row["train_loss"] for row in trained.history]
    assert losses[-1] < 0.8 * losses[0]
    assert trained.result["test_top1_percent"] > 30


def test_a_run_leaves_its_files(digits, tmp_path):
    trained = run(digits, output=tmp_path / "run")
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {
        "args.toml",
        "env.json",
        "train.log",
        "metrics.jsonl",
        "summary.csv",
        "result.json",
        "model.safetensors",
        "config.json",
    }
    text = {name: (tmp_path / "run" / name).read_text() for name in found - {"model.safetensors"}}
    assert json.loads(text["result.json"]) == trained.result
    assert [json.loads(line) for line in text["metrics.jsonl"].splitlines()] == trained.history
    assert text["summary.csv"].splitlines()[0] == "epoch,train_loss,eval_loss,eval_top1,lr"
    assert len(text["summary.csv"].splitlines()) == 3
    assert recipe_from_toml(text["args.toml"]) == trained.recipe
    assert tomllib.loads(text["args.toml"])["model"]["options"]["num_classes"] == 10


def test_the_log_line_shows_time_wait_and_memory(digits, tmp_path):
    heard = Heard()
    run(digits, output=tmp_path / "run", progress=heard)
    pattern = re.compile(
        r"epoch: \[\d\]  \[\d/4\]  eta: \d:\d\d:\d\d  lr: \S+  loss: \d+\.\d{4}  "
        r"time: \d+\.\d{4}  data: \d+\.\d{4}  max mem: \d+"
    )
    lines = [line for line in heard.lines if "time: " in line]
    assert len(lines) == 4
    assert all(pattern.fullmatch(line) for line in lines)
    assert sum("validation top-1: " in line for line in heard.lines) == 2
    assert "64 train, 40 validation, 40 test images" in heard.lines[0]
    assert heard.steps == [(step, 8) for step in range(1, 9)]
    assert (tmp_path / "run" / "train.log").read_text().splitlines() == heard.lines


def test_the_result_counts_what_it_should(digits):
    trained = run(digits)
    result, evaluation = trained.result, saccade.evaluate(trained.model, digits.test, digits)
    assert result["images_seen"] == 128
    assert (result["test_images"], result["validation_images"]) == (40, 40)
    assert result["test_top1_percent"] == evaluation.top1_percent
    assert result["test_correct"] == evaluation.correct_hex
    assert result["validation_top1_percent"] == trained.history[-1]["eval_top1"]
    assert result["train_seconds"] == sum(result["epoch_seconds"])
    assert result["parameters"] == sum(weight.numel() for weight in trained.model.parameters())


def test_the_test_part_is_read_once_at_the_end_and_only_where_wanted(digits, monkeypatch):
    read = []
    real = objective.evaluate
    monkeypatch.setattr(
        objective, "evaluate", lambda model, split, *a, **k: (read.append(split), real(model, split, *a, **k))[1]
    )
    run(digits)
    assert read == [digits.validation, digits.validation, digits.test]
    read.clear()
    trained = run(digits, test=False)
    assert read == [digits.validation, digits.validation]
    assert not [name for name in trained.result if name.startswith("test")]


def test_bf16_weights_are_trained_and_saved_as_such(digits, tmp_path):
    trained = run(digits, {"train.dtype": "bf16", "train.epochs": 4}, output=tmp_path / "run")
    assert trained.model.head.weight.dtype == torch.bfloat16
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    fp32 = run(digits, {"train.epochs": 4})
    assert trained.history[-1]["train_loss"] == pytest.approx(fp32.history[-1]["train_loss"], rel=0.1)


def test_autocast_keeps_float32_weights(digits):
    trained = run(digits, {"train.amp_dtype": "bf16"})
    fp32 = run(digits)
    assert trained.model.head.weight.dtype == torch.float32
    assert trained.history[0]["train_loss"] != fp32.history[0]["train_loss"]
    assert trained.history[0]["train_loss"] == pytest.approx(fp32.history[0]["train_loss"], rel=0.05)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(digits, tmp_path, dtype):
    (tmp_path / "mine.py").write_text(BREAKS_AT_STEP_6)
    changed = {"model.attention": f"{tmp_path}/mine.py:Breaks", "train.dtype": dtype}
    with pytest.raises(Diverged, match=r"at step 6 \(epoch 1\); first not finite: output of blocks.1.attn;"):
        run(digits, changed, output=tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert (facts["epoch"], facts["step"], facts["module"]) == (1, 6, "blocks.1.attn")
    assert len(facts["images"]) == 16
    assert not (tmp_path / "run" / "result.json").exists()
    saved, _ = saccade.load_model(
        tmp_path / "run" / "checkpoints" / "epoch-0", trust_class=(f"{tmp_path}/mine.py:Breaks",)
    )
    assert all(weight.isfinite().all() for weight in saved.state_dict().values())


def test_images_that_are_not_finite_are_named(digits):
    with pytest.raises(Diverged, match=r"step 0 .* first not finite: images"):
        run(dataclasses.replace(digits, std=(0.0,)))


def test_weights_that_overflow_in_the_last_step_are_found_by_the_evaluation(digits, tmp_path):
    changed = {"train.epochs": 1, "train.batch_size": 64, "train.lr": 1e38, "train.weight_decay": 1e10}
    with pytest.raises(
        Diverged, match=r"validation loss is not finite at step 0 \(epoch 0\); first not finite: weight"
    ):
        run(digits, changed, output=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("model.safetensors"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model.name": "vit_nono_patch1_8"}, "there is no model 'vit_nono_patch1_8'"),
        ({"model.attention": "softmaxx"}, "did you mean 'softmax'"),
        ({"model.options.patch_size": 3}, "the patch must divide the image"),
        ({"model.options.deep": 3}, "no option 'deep': did you mean depth"),
        ({"model.options.global_pool": ""}, "model.options.global_pool"),
    ],
)
def test_an_impossible_model_is_refused_before_any_image_is_read(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        loop.train(recipe(changed, **{"data.name": "no/such/folder"}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model.options.num_classes": 5}, "model.options.num_classes = 5: digits has 10; leave the option out"),
        ({"model.options.in_chans": 3}, "model.options.in_chans = 3: digits has 1; leave the option out"),
        ({"train.batch_size": 65}, "train.batch_size = 65: digits has 64 training images"),
        ({"model.options.img_size": 16}, r"digits was loaded for images of \(8, 8\)"),
    ],
)
def test_a_recipe_that_does_not_fit_the_images_is_refused_and_leaves_nothing(digits, tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        run(digits, changed, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused_before_any_image_is_read(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(ValueError, match="--output"):
        loop.train(recipe({"data.name": "no/such/folder"}), output=tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_the_attention_advances_before_each_step(digits, monkeypatch):
    from saccade.models.vit import VisionTransformer

    told = []
    monkeypatch.setattr(VisionTransformer, "advance", lambda model, step, seed: told.append((step, seed)))
    run(digits, {"train.seed": 3})
    assert told == [(step, 3) for step in range(8)]


def test_the_rate_warms_up_and_falls(digits):
    trained = run(digits, {"train.epochs": 4, "train.warmup_share": 0.25})
    rates = [row["lr"] for row in trained.history]
    assert rates[0] == 3e-3
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 2e-4


def test_python_users_train_in_one_line(digits):
    trained = saccade.train(
        "vit_nano_patch1_8", "linear", digits, epochs=1, batch_size=32, settings={"augment.flip": 0.0}, quiet=True
    )
    assert trained.recipe.model.attention == "linear"
    assert trained.recipe.train.batch_size == 32
    assert math.isfinite(trained.result["test_loss"])
