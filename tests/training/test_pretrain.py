import dataclasses
import json
import math
from functools import partial
from itertools import islice

import pytest
import torch
from PIL import Image

import saccade
from saccade.data.augment import Augment
from saccade.data.batches import Batch, eval_batches, train_batches
from saccade.data.digits import find_digits
from saccade.data.draws import uniform
from saccade.data.sources import load_data
from saccade.errors import Diverged
from saccade.models.embed import patchify
from saccade.training import baselines, loop, pretraining
from saccade.training.baselines import training_constants
from saccade.training.pretraining import Pretraining, evaluate_reconstruction
from saccade.training.progress import Silent
from saccade.training.recipe import Recipe, with_values
from saccade.training.setup import objective_of

BASE = {
    "model.name": "mae_nano_patch1_8",
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.lr": 3e-3,
    "train.logging_step": 2,
}


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def digits():
    """64 training images, so an epoch of the base recipe has four steps, and 40 in each of the other parts."""
    loaded = load_data("digits", img_size=(8, 8), limit=64)
    few = torch.arange(40)
    return dataclasses.replace(loaded, validation=loaded.validation.select(few), test=loaded.test.select(few))


def recipe(changed=()):
    return with_values(Recipe(), BASE | dict(changed))


def run(digits, changed=(), /, **options):
    return loop.train(recipe(changed), data=digits, device="cpu", **options)


def without_seconds(row):
    return {key: value for key, value in row.items() if "seconds" not in key and key != "peak_bytes"}


def model(**options):
    return saccade.create_model("mae_nano_patch1_8", **options)


def whole_batch(digits):
    return next(train_batches(digits, 64, seed=0, epoch=0, augment=Augment()))


def draws(batch, seed=0, epoch=0):
    return partial(uniform, seed, epoch, batch.index)


@pytest.mark.parametrize("changed", [{}, {"train.dtype": "bf16"}, {"train.amp_dtype": "bf16"}], ids=str)
def test_the_same_seed_gives_the_same_bits(digits, changed):
    augmented = {"augment": {"crop_padding": 1, "flip": 0.5}} | changed
    first = run(digits, augmented)
    torch.rand(7)
    second = run(digits, augmented)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    assert [without_seconds(row) for row in first.history] == [without_seconds(row) for row in second.history]
    assert without_seconds(first.result) == without_seconds(second.result)


def test_another_seed_hides_other_patches(digits):
    batch, made = whole_batch(digits), model()
    losses = {Pretraining()(made, batch, draws(batch, seed=seed)).item() for seed in range(3)}
    assert len(losses) == 3


def masks_seen(monkeypatch):
    """What the models are told to hide, batch by batch."""
    seen, real = [], saccade.MaskedAutoencoder.forward

    def forward(made, images, noise=None, **options):
        if made.training:
            seen.append(noise)
        return real(made, images, noise, **options)

    monkeypatch.setattr(saccade.MaskedAutoencoder, "forward", forward)
    return seen


def test_masks_differ_between_epochs_and_do_not_depend_on_the_batch(digits, monkeypatch):
    seen = masks_seen(monkeypatch)
    of_size = {}
    for size in (16, 32):
        run(digits, {"train.batch_size": size})
        noise = torch.cat(seen).unflatten(0, (2, 64))
        of_size[size] = noise
        seen.clear()
    # The order of an epoch does not depend on the batch, so the rows lie alike.
    assert torch.equal(of_size[16], of_size[32])
    hidden = of_size[16].argsort(dim=2)[..., 16:].sort(dim=2).values
    assert not torch.equal(hidden[0], hidden[1])
    assert len({tuple(row) for row in hidden[0].tolist()}) == 64


def test_the_loss_is_the_models_own(digits):
    batch, made = whole_batch(digits), model()
    wanted = made(batch.images, uniform(0, 3, batch.index, "mask", 64)).loss
    assert torch.equal(Pretraining()(made, batch, draws(batch, epoch=3)), wanted)


def test_labels_are_not_looked_at(digits):
    none = [dataclasses.replace(part, labels=torch.zeros_like(part.labels)) for part in digits.splits.values()]
    unlabelled = dataclasses.replace(digits, train=none[0], validation=none[1], test=none[2])
    assert without_seconds(run(digits).result) == without_seconds(run(unlabelled).result)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 256])
def test_every_image_of_a_split_counts_once_whatever_the_batch(digits, batch_size):
    made = model(mask_ratio=0.5)
    (whole,) = eval_batches(digits.validation, digits, 40)
    noise = uniform(0, 0, whole.index, "evaluation mask", 64)
    found = evaluate_reconstruction(made, digits.validation, digits, batch_size=batch_size)
    with torch.no_grad():
        out = made(whole.images, noise, details=True)
    targets = whole.images.permute(0, 2, 3, 1).reshape(40, 64, 1)
    squared = ((out.pred - targets) ** 2).squeeze(2).double()
    assert found.loss == pytest.approx((squared * out.mask).sum().item() / out.mask.sum().item(), rel=1e-6)


def by_hand(digits, mask_ratio, error, middle):
    """Losses of the training part's one colour and picture, at the hidden pixels of the validation part."""
    train, judged = (
        (torch.stack([part.images[number] for number in range(len(part))]).flatten(1).double() / 255 - digits.mean[0])
        / digits.std[0]
        for part in (digits.train, digits.validation)
    )
    noise = uniform(0, 0, torch.arange(len(judged)), "evaluation mask", 64)
    hidden = noise.argsort(dim=1).argsort(dim=1) >= round(64 * (1 - mask_ratio))
    picture = torch.stack([middle(place) for place in train.unbind(1)])
    return error(judged - middle(train))[hidden].mean().item(), error(judged - picture)[hidden].mean().item()


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize(
    ("objective", "error", "middle"), [("mae", torch.square, torch.mean), ("simmim", torch.abs, torch.median)]
)
def test_the_constants_are_the_training_parts_whatever_is_evaluated(digits, count, objective, error, middle):
    """Those of five pictures themselves would be a fifth too good."""
    few = dataclasses.replace(digits, validation=digits.validation.select(torch.arange(count)))
    found = evaluate_reconstruction(model(mask_ratio=0.5, objective=objective), few.validation, few)
    colour, picture = by_hand(few, 0.5, error, middle)
    assert found.baseline_loss == pytest.approx(colour, rel=1e-5)
    assert found.mean_picture_loss == pytest.approx(picture, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"norm_pix_loss": True}, {"objective": "simmim"}], ids=str)
def test_no_other_constant_loses_less_on_the_training_part(digits, options):
    made = model(patch_size=2, **options)
    (batch,) = eval_batches(digits.train, digits, 64)
    targets = made.targets(patchify(batch.images, (2, 2)))
    known = training_constants(made, digits)
    for constant in (known.colour, known.picture):
        least = made.error(constant.expand_as(targets), targets)
        for moved in (-0.05, 0.05):
            assert made.error((constant + moved).expand_as(targets), targets) > least - 1e-6
    assert made.error(known.picture.expand_as(targets), targets) < made.error(known.colour.expand_as(targets), targets)


def test_medians_of_a_large_part_are_of_pictures_spread_over_it(digits, monkeypatch):
    monkeypatch.setattr(baselines, "_MOST_VALUES", 16 * 64)
    made = model(objective="simmim")
    some = dataclasses.replace(digits, train=digits.train.select(torch.arange(0, 64, 4)))
    assert torch.equal(training_constants(made, digits).picture, training_constants(made, some).picture)


def test_the_training_part_is_read_for_constants_once_a_run(digits, monkeypatch):
    asked = []

    def counted(*arguments):
        asked.append(arguments)
        return training_constants(*arguments)

    monkeypatch.setattr(pretraining, "training_constants", counted)
    run(digits)
    assert len(asked) == 1


def test_simmim_speaks_of_medians_and_of_no_decoder(digits):
    heard = Heard()
    trained = run(digits, {"model.options": {"objective": "simmim"}, "train.lr": 1e-7}, progress=heard)
    assert heard.lines[0].startswith("mae_nano_patch1_8 with softmax, 48 of 64 patches hidden: ")
    assert "(predicting the median: " in heard.lines[3]
    assert ", the median picture: " in heard.lines[3]
    assert any("is not below what predicting the median gives" in line for line in heard.lines)
    assert "is not below what predicting the median picture gives" in heard.lines[-1]
    assert "decoder_attention" not in trained.result


def test_the_validation_loss_does_not_depend_on_the_seed_nor_on_the_epoch(digits):
    made = run(digits).model
    found = evaluate_reconstruction(made, digits.validation, digits)
    torch.rand(3)
    assert evaluate_reconstruction(made, digits.validation, digits) == found
    assert evaluate_reconstruction(made.train(), digits.validation, digits) == found
    assert made.training


def test_a_split_without_images_is_refused(digits):
    with pytest.raises(ValueError, match="digits: this split has no images"):
        evaluate_reconstruction(model(), digits.test.select(torch.arange(0)), digits)


def test_predicting_the_mean_of_standardised_pixels_gives_1(digits):
    batch = whole_batch(digits)
    found = Pretraining().beside(model(), batch, draws(batch))["baseline_loss"].item()
    assert found == pytest.approx(1, abs=0.03)
    (every,) = eval_batches(digits.train, digits, 64)
    almost_all = model(mask_ratio=0.96875)
    found = Pretraining().beside(almost_all, every, draws(every))["baseline_loss"].item()
    assert found == pytest.approx(every.images.var(correction=0).item(), abs=0.01)
    assert found == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("options", [{}, {"norm_pix_loss": True}, {"objective": "simmim"}], ids=str)
def test_the_baseline_is_what_a_model_that_predicts_the_mean_or_median_loses(options):
    torch.manual_seed(0)
    colours = torch.tensor([0.5, -1.0, 2.0])[:, None, None]
    batch = Batch(torch.randn(6, 3, 16, 16) + colours, torch.zeros(6).long(), None, torch.arange(6))
    made = saccade.create_model("mae_micro_patch4_32", img_size=16, **options)
    noise = draws(batch)("mask", 16)
    _, hidden = made.hide(6, noise, batch.images.device)
    patches = batch.images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(6, 16, 48)
    patches = patches.gather(1, hidden[..., None].expand(-1, -1, 48))
    if made.norm_pix_loss:
        patches = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    pixels = patches.unflatten(2, (16, 3)).flatten(0, 2)
    mean = pixels.median(dim=0).values if made.objective == "simmim" else pixels.mean(dim=0)
    with torch.no_grad():
        made.decoder_pred.weight.zero_()
        made.decoder_pred.bias.copy_(mean.repeat(16))
    wanted = Pretraining()(made, batch, draws(batch)).item()
    assert Pretraining().beside(made, batch, draws(batch))["baseline_loss"].item() == pytest.approx(wanted, rel=1e-5)


def test_a_model_that_cannot_learn_is_warned_about_and_one_that_learns_is_not(digits):
    stuck, learning = Heard(), Heard()
    run(digits, {"train.lr": 1e-7, "train.epochs": 11}, progress=stuck)
    trained = run(digits, {"train.epochs": 11}, progress=learning)
    assert trained.history[1]["train_loss"] < 0.99 * trained.history[1]["train_baseline_loss"]
    warned = [
        number for number, line in enumerate(stuck.lines) if "is not below what predicting the mean gives" in line
    ]
    # Two of eleven epochs are the first that are a tenth.
    assert len(warned) == 1
    assert "warning: after 2 of 11 epochs the loss, " in stuck.lines[warned[0]]
    assert "try another --lr" in stuck.lines[warned[0]]
    assert stuck.lines[warned[0] - 1].startswith("epoch: [1]  validation loss: ")
    assert not [line for line in learning.lines if "predicting the mean gives" in line]


def test_a_model_that_ends_at_the_mean_picture_is_warned_about(digits):
    heard = Heard()
    trained = run(digits, progress=heard)
    assert trained.result["validation_loss"] > trained.result["validation_mean_picture_loss"]
    assert "is not below what predicting the mean picture gives" in heard.lines[-1]
    row = {"epoch": 9, "train_loss": 0.4, "train_baseline_loss": 1.0, "eval_loss": 0.4, "eval_mean_picture_loss": 0.5}
    assert Pretraining().warning(row, 10) == ""
    assert Pretraining().warning(row | {"eval_loss": 0.499}, 10) != ""
    assert Pretraining().warning(row | {"eval_loss": 0.6}, 11) == ""


def test_the_files_tell_of_losses_and_not_of_accuracy(digits, tmp_path):
    heard = Heard()
    trained = run(digits, output=tmp_path / "run", progress=heard)
    assert heard.lines[0].startswith("mae_nano_patch1_8 with softmax, 48 of 64 patches hidden: 29,441 parameters")
    assert "  baseline_loss: " in heard.lines[1]
    assert "(predicting the mean: " in heard.lines[3]
    summary = (tmp_path / "run" / "summary.csv").read_text().splitlines()
    assert summary[0] == "epoch,train_loss,train_baseline_loss,eval_loss,eval_baseline_loss,eval_mean_picture_loss,lr"
    assert len(summary) == 3
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == trained.result
    assert not [name for name in result if "top1" in name or "correct" in name]
    assert (result["decoder_attention"], result["mask_ratio"], result["norm_pix_loss"]) == ("softmax", 0.75, False)
    found = evaluate_reconstruction(trained.model, digits.test, digits)
    assert (result["test_loss"], result["test_images"]) == (found.loss, 40)
    loaded, facts = saccade.load_model(tmp_path / "run")
    assert isinstance(loaded, saccade.MaskedAutoencoder)
    assert facts["mean"] == list(digits.mean)


def test_what_the_visible_patches_tell_is_learned(tmp_path):
    """Each picture is of one grey: whoever sees a patch knows the others, and the mean picture knows nothing."""
    for number in range(96):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 37 * number % 256).save(folder / f"{number}.png")
    greys = load_data(tmp_path, img_size=(8, 8))
    result = run(greys, {"train.epochs": 25, "train.lr": 1e-2}).result
    assert result["test_mean_picture_loss"] > 0.5
    assert result["test_loss"] < 0.1


@pytest.fixture
def heap(tmp_path):
    """A folder of the digits' pictures, in no class folders."""
    for number, pixels in enumerate(islice(find_digits().parts["train"].read(), 80)):
        place = tmp_path / "heap" / ("." if number % 2 else "more") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return tmp_path / "heap"


def test_pictures_without_classes_are_pretrained_on(heap, tmp_path):
    heard = Heard()
    trained = loop.train(recipe({"data.name": str(heap)}), output=tmp_path / "run", device="cpu", progress=heard)
    assert [line for line in heard.lines if "lies in no class folder: the pictures are taken without classes" in line]
    assert trained.data_facts["images"] == {"train": 58, "validation": 6, "test": 16}
    assert math.isfinite(trained.result["test_loss"])
    assert saccade.load_model(tmp_path / "run")[1]["classes"] == []


def test_their_run_goes_on_to_the_same_end(heap, tmp_path):
    asked, whole = recipe({"data.name": str(heap)}), tmp_path / "whole"
    wanted = loop.train(asked, output=whole, device="cpu").model.state_dict()

    class Stopped(Silent):
        def say(self, line):
            if line.startswith("epoch: [1]  validation"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(asked, output=tmp_path / "cut", device="cpu", progress=Stopped())
    went_on = loop.train(asked, output=tmp_path / "cut", device="cpu", resume=True)
    for name, weight in went_on.model.state_dict().items():
        assert torch.equal(weight, wanted[name]), name


def test_a_classifier_and_a_probe_need_classes(heap, tmp_path):
    with pytest.raises(ValueError, match=r"lies in no class folder; .* with `saccade pretrain`"):
        saccade.train("vit_nano_patch1_8", data=heap, quiet=True)
    images = load_data(heap, img_size=8, labelled=False)
    made = saccade.create_model("vit_nano_patch1_8")
    for use in (
        lambda: saccade.train("vit_nano_patch1_8", data=images, output=tmp_path / "run", quiet=True),
        lambda: saccade.probe(model(), images, method="knn"),
        lambda: saccade.evaluate(made, images.test, images),
    ):
        with pytest.raises(ValueError, match="was loaded without classes, and a classifier or a probe needs them"):
            use()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed", [{"augment.mixup": 0.8}, {"augment.cutmix": 1.0}, {"train.label_smoothing": 0.1}], ids=str
)
def test_what_needs_labels_is_refused_before_any_image_is_read(tmp_path, changed):
    (name,) = changed
    with pytest.raises(ValueError, match=rf"{name} = .*learns without labels .*; set {name} to 0"):
        loop.train(recipe(changed | {"data.name": "no/such/folder"}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert objective_of(recipe({name: 0}))


def test_python_users_pretrain_in_one_line(digits):
    trained = saccade.pretrain(
        "mae_nano_patch1_8",
        "linear",
        digits,
        decoder_attention="softmax",
        mask_ratio=0.5,
        epochs=1,
        batch_size=32,
        quiet=True,
    )
    assert isinstance(trained.model, saccade.MaskedAutoencoder)
    assert (trained.model.attention, trained.model.decoder_attention) == ("linear", "softmax")
    assert trained.model.visible == 32
    assert math.isfinite(trained.result["test_loss"])


def test_each_function_refuses_the_others_models():
    with pytest.raises(ValueError, match=r"`saccade pretrain --model mae_nano_patch1_8` .*a classifier .* is vit_nano"):
        saccade.train("mae_nano_patch1_8", quiet=True)
    with pytest.raises(ValueError, match="`saccade train --model vit_nano_patch1_8` trains it"):
        saccade.pretrain("vit_nano_patch1_8", quiet=True)


def test_a_loss_that_is_not_finite_stops_the_run(digits):
    with pytest.raises(Diverged, match=r"step 0 .* first not finite: images"):
        run(dataclasses.replace(digits, std=(0.0,)))
