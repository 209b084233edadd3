"""The probe finds what is in the features, no more; it changes nothing, and the test part has no say."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from saccade.data.batches import eval_batches
from saccade.data.dataset import Split
from saccade.data.pictures import Pictures
from saccade.data.sources import load_data
from saccade.models.sizes import create_model
from saccade.training.features import Features, Part, extract, own_pool
from saccade.training.linear_probe import fitted
from saccade.training.neighbours import nearest_classes
from saccade.training.probe import METHODS, probe, probe_features, random_start

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", img_size=(8, 8), limit=200)


def made(name="mae_nano_patch1_8", **options):
    return create_model(name, depth=1, **options)


def features_of(make, seed=0, images=150, classes=3):
    """Features by `make(labels, generator)` for each of the three parts."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(3):
        labels = torch.arange(images) % classes
        parts.append(Part(make(labels, generator), labels))
    return Features(*parts, classes=classes, pool="token")


def separable(labels, generator):
    return 3 * torch.eye(4)[labels] + 0.2 * torch.randn(len(labels), 4, generator=generator)


def noise(labels, generator):
    return torch.randn(len(labels), 4, generator=generator)


@every_method
def test_separable_features_are_told_apart_without_a_mistake(method):
    found = probe_features(features_of(separable), method=method)
    assert found["validation_top1_percent"] == found["test_top1_percent"] == 100
    assert found["test_correct"] == "ff" * 18 + "fc"
    assert (found["test_images"], found["train_images"]) == (150, 150)


@every_method
def test_noise_stays_at_chance(method):
    found = probe_features(features_of(noise, images=600), method=method)
    # Six standard deviations of the mean of 600 draws of chance 1 / 3.
    assert abs(found["test_top1_percent"] - 100 / 3) < 600 * math.sqrt(2 / 9 / 600)


@every_method
def test_the_test_part_has_no_say(method):
    features = features_of(lambda labels, g: separable(labels, g) + 2 * noise(labels, g))
    other = replace(features, test=Part(features.test.x.flip(1), features.test.labels.flip(0)))
    one, another = probe_features(features, method=method), probe_features(other, method=method)
    assert one["settings"] == another["settings"]
    assert one["validation_top1_percent"] == another["validation_top1_percent"]
    assert one["test_correct"] != another["test_correct"]


@pytest.mark.parametrize("method", ["linear", "linear_bn"])
def test_the_penalty_is_the_one_that_the_validation_part_likes_best(method):
    features = features_of(lambda labels, g: 0.3 * separable(labels, g) + noise(labels, g))
    penalties = [1.0, 0.1, 1e-4]
    alone = {one: probe_features(features, method=method, penalties=[one]) for one in penalties}
    together = probe_features(features, method=method, penalties=penalties)
    best = max(one["validation_top1_percent"] for one in alone.values())
    assert (
        together["validation_top1_percent"] == best == alone[together["settings"]["penalty"]]["validation_top1_percent"]
    )
    assert len({one["validation_top1_percent"] for one in alone.values()}) > 1
    assert together["test_correct"] == alone[together["settings"]["penalty"]]["test_correct"]


def newton(x, labels, classes, penalty):
    """Weights and biases of the least mean cross entropy + penalty / 2 · ‖W‖², by Newton's method, whole and dense."""
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    free = torch.ones(classes, x.shape[1], dtype=torch.float64)
    free[:, -1] = 0

    def objective(flat):
        weight = flat.view_as(free)
        loss = nn.functional.cross_entropy(x @ weight.T, labels)
        # All biases may move together without effect; the last term says where they stay.
        return loss + penalty / 2 * (weight * free).square().sum() + 1e-3 * weight[:, -1].mean().square()

    flat = torch.zeros(free.numel(), dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        (slope,) = torch.autograd.grad(objective(flat), flat)
        curvature = torch.autograd.functional.hessian(objective, flat.detach())
        flat = (flat.detach() - torch.linalg.solve(curvature, slope)).requires_grad_()
    weight = flat.detach().view_as(free)
    return weight[:, :-1], weight[:, -1]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_linear_classifier_is_the_optimum_that_newtons_method_finds(batch_norm):
    # Features of very different sizes, as a BatchNorm would be wanted for.
    features = features_of(lambda labels, g: separable(labels, g) * torch.tensor([1.0, 30.0, 0.1, 1.0]) + 5)
    x, labels = features.train.x, features.train.labels
    scale = x.std(dim=0, correction=0) if batch_norm else x.var(dim=0, correction=0).mean().sqrt()
    scaled = (x - x.mean(dim=0)) / scale
    fits = fitted(x, labels, 3, batch_norm=batch_norm, penalties=(0.1, 1e-2))
    for penalty, fit in zip((0.1, 1e-2), fits, strict=True):
        weight, bias = newton(scaled, labels, 3, penalty)
        expected = scaled.double() @ weight.T + bias
        got = x.double() @ fit.weight.T + fit.bias
        # BatchNorm adds 1e-6 to the variance.
        torch.testing.assert_close(got - got.mean(1, True), expected - expected.mean(1, True), atol=2e-4, rtol=2e-4)
        assert fit.penalty == penalty


@pytest.mark.parametrize("method", ["linear", "linear_bn"])
def test_the_size_of_the_features_does_not_matter(method):
    features = features_of(lambda labels, g: separable(labels, g) + noise(labels, g))
    grown = replace(features, **{name: Part(1000 * part.x, part.labels) for name, part in parts_of(features).items()})
    assert probe_features(features, method=method) == probe_features(grown, method=method)


def parts_of(features):
    return {name: getattr(features, name) for name in ("train", "validation", "test")}


def voted_by_hand(query, known, labels, classes, k, temperature):
    """The published vote, one query and one neighbour at a time."""
    similar = [
        (float(query @ other / query.norm() / other.norm()), int(label))
        for other, label in zip(known, labels, strict=True)
    ]
    votes = [0.0] * classes
    for similarity, label in sorted(similar, reverse=True)[:k]:
        votes[label] += math.exp(similarity / temperature)
    return votes.index(max(votes))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 10.0), (150, 1.0)])
def test_the_vote_is_that_of_the_formula(monkeypatch, k, temperature):
    features = features_of(lambda labels, g: separable(labels, g) + 3 * noise(labels, g), images=150)
    train, test = features.train, features.test
    expected = [voted_by_hand(query, train.x, train.labels, 3, k, temperature) for query in test.x]
    found = nearest_classes(test.x, train.x, train.labels, 3, k=k, temperature=temperature)
    assert found.tolist() == expected
    # Seven queries at a time give the same.
    monkeypatch.setattr("saccade.training.neighbours._MOST_VALUES", 7 * max(150, 3 * k))
    few = nearest_classes(test.x, train.x, train.labels, 3, k=k, temperature=temperature)
    assert few.tolist() == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [({"k": 0}, "must be 1..150"), ({"k": 151}, "must be 1..150"), ({"temperature": 0.0}, "above")],
)
def test_a_vote_that_makes_no_sense_is_refused(options, words):
    part = features_of(noise).train
    with pytest.raises(ValueError, match=words):
        nearest_classes(part.x, part.x, part.labels, 3, **options)


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("name", ["mae_nano_patch1_8", "vit_nano_patch1_8"])
def test_features_are_the_tokens_of_whole_images(digits, name, pool):
    model = made(name)
    features = extract(model, digits, pool=pool, batch_size=77)
    with torch.no_grad():
        (batch,) = eval_batches(digits.validation, digits, len(digits.validation))
        tokens = model.eval().forward_features(batch.images)
    expected = tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(1)
    torch.testing.assert_close(features.validation.x, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(features.validation.labels, digits.validation.labels)
    assert [len(part.x) for part in parts_of(features).values()] == [200, 360, 360]


def test_features_of_a_classifier_are_what_its_head_reads(digits):
    model = made("vit_nano_patch1_8", global_pool="avg", class_token=False)
    features = extract(model, digits)
    with torch.no_grad():
        (batch,) = eval_batches(digits.test, digits, len(digits.test))
        expected = model.eval().forward_head(model.forward_features(batch.images), pre_logits=True)
    torch.testing.assert_close(features.test.x, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "pool"),
    [
        ("mae_nano_patch1_8", {}, "token"),
        ("vit_nano_patch1_8", {}, "token"),
        ("vit_nano_patch1_8", {"global_pool": "avg"}, "avg"),
        ("vit_nano_patch1_8", {"global_pool": "all"}, "avg"),
        ("vit_nano_patch1_8", {"global_pool": ""}, "token"),
        ("vit_nano_patch1_8", {"global_pool": "", "class_token": False}, "avg"),
    ],
)
def test_each_model_is_read_by_what_it_was_made_for(name, options, pool):
    assert own_pool(made(name, **options)) == pool


@pytest.mark.parametrize("training", [True, False])
def test_frozen_means_frozen(digits, training):
    model = made(attention="linear").train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    probe(model, digits)
    assert model.training is training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@every_method
def test_asked_again_the_probe_says_the_same(digits, method):
    torch.manual_seed(0)
    one = probe(made(), digits, method=method)
    torch.manual_seed(1)
    assert probe(made(), digits, method=method) == one


def test_dropout_rests_while_features_are_computed(digits):
    model = made("vit_nano_patch1_8", pos_drop_rate=0.5).train()
    plain = made("vit_nano_patch1_8")
    assert torch.equal(extract(model, digits).test.x, extract(plain, digits).test.x)


def test_autocast_changes_features_a_little(digits):
    plain, cast = (extract(made(), digits, amp_dtype=one).test.x for one in (None, "bf16"))
    assert not torch.equal(plain, cast)
    torch.testing.assert_close(plain, cast, atol=0.05, rtol=0.05)


def test_the_random_start_is_the_first_model_of_that_seed():
    model = made(seed=3, attention="performer")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    started, fresh = random_start(model, 3), made(seed=3, attention="performer")
    assert started.state_dict().keys() == fresh.state_dict().keys()
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in started.state_dict().items())
    assert not torch.equal(model.cls_token, started.cls_token)


def without_images(digits, part):
    return replace(digits, **{part: getattr(digits, part).select(torch.arange(0))})


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda data: data, {"method": "svm"}, "method='svm': must be linear, linear_bn, knn"),
        (lambda data: data, {"pool": "max"}, "pool='max': must be token or avg"),
        (lambda data: data, {"penalties": []}, "give one or more numbers above 0"),
        (lambda data: data, {"penalties": [0.0]}, "give one or more numbers above 0"),
        (lambda data: data, {"method": "knn", "k": 201}, "must be 1..200"),
        (lambda data: without_images(data, "validation"), {}, "its validation part has no images"),
        (lambda data: replace(data, img_size=(6, 6)), {}, r"loaded as 1 x 6 x 6, and the model takes 1 x 8 x 8"),
        (
            lambda data: replace(data, train=Split(Pictures.of(torch.zeros(4, 3, 8, 8).byte()), torch.arange(4))),
            {},
            r"loaded as 3 x 8 x 8, and the model takes 1 x 8 x 8 .*in_chans=1",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused(digits, change, options, words):
    with pytest.raises(ValueError, match=words):
        probe(made(), change(digits), **options)


def test_a_class_token_that_is_not_there_is_refused(digits):
    model = made("vit_nano_patch1_8", global_pool="avg", class_token=False)
    with pytest.raises(ValueError, match='use pool="avg"'):
        probe(model, digits, pool="token")
