"""Performer against performer-pytorch, the kernel it estimates, and the formula with every pair written out."""

import inspect
import math

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.peers import performer_pytorch
from torch.testing import assert_close

from saccade.attention import Tokens, build, performer
from saccade.attention.initial import seeded
from saccade.attention.performer import Performer, performer_attention, random_features
from saccade.models import create_model

PACKAGE = performer_pytorch.performer_pytorch

DIM, HEADS, FEATURES = 24, 3, 20
KERNELS = ["softmax", "relu"]


def heads(n, e=8, scale=1.0, dtype=torch.float64, rows=None):
    """Queries, keys and values as views of one tensor, as a layer has them; `scale` makes queries and keys larger."""
    drawn = torch.randn(2, n, 3, 2, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = drawn * torch.tensor([scale, scale, 1.0], dtype=torch.float64)[:, None, None]
    q, k, v = (one.transpose(1, 2) for one in scaled.to(dtype).unbind(2))
    return [q[:, :, slice(rows)].requires_grad_(), k.requires_grad_(), v.requires_grad_()]


def drawn(rows=FEATURES, width=8, scaling=0, seed=1):
    return random_features(rows, width, scaling, torch.Generator().manual_seed(seed)).double()


def packages(q, k, v, omega, kernel):
    """performer-pytorch with the same ω."""
    if kernel == "relu":
        return PACKAGE.linear_attention(*(PACKAGE.generalized_kernel(x, projection_matrix=omega) for x in (q, k)), v)
    features = (PACKAGE.softmax_kernel(x, projection_matrix=omega, is_query=x is q) for x in (q, k))
    return PACKAGE.linear_attention(*features, v)


# At a scale of 6 most features are below the ε that is added to them.
@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("compute", [performer._by_features, performer._ByFeatures.apply])
def test_it_is_the_packages_attention_with_the_same_features(compute, kernel, scale):
    leaves, omega = heads(30, scale=scale, rows=17), drawn()
    seen, expected = compute(*leaves, omega, kernel), packages(*leaves, omega, kernel)
    assert_close(seen, expected, rtol=1e-10, atol=1e-12)
    assert_close(slopes(seen, leaves), slopes(expected, leaves), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_layer_is_the_packages_attention_between_its_projections(kernel):
    layer = lively(f'performer(features={FEATURES}, kernel="{kernel}")', DIM, HEADS, Tokens((3, 5), prefix=1))
    x = images(2, 16, DIM).requires_grad_()
    expected = layer.merge(packages(*layer.split(x), layer.omega, kernel))
    leaves = [x, *layer.parameters()]
    assert_close(layer(x), expected)
    assert_close(slopes(layer(x), leaves), slopes(expected, leaves))


@pytest.mark.parametrize("kernel", KERNELS)
def test_some_patches_are_a_shorter_sequence(kernel):
    tokens = Tokens((3, 5), prefix=1)
    layer = lively(f'performer(features={FEATURES}, kernel="{kernel}")', DIM, HEADS, tokens)
    x, ids = images(2, 1 + 6, DIM), visible(2, tokens, 6)
    assert_close(layer(x, ids), layer.merge(packages(*layer.split(x), layer.omega, kernel)))


@pytest.mark.parametrize("scaling", [0, 1])
def test_rows_are_orthogonal_in_blocks(scaling):
    omega = drawn(19, 8, scaling)
    for block in (omega[:8], omega[8:16], omega[16:]):
        lengths = block.norm(dim=1)
        assert_close(block @ block.T, torch.diag(lengths.square()), rtol=0, atol=1e-5)
        if scaling == 1:
            assert_close(lengths, torch.full_like(lengths, 8**0.5), rtol=1e-6, atol=0)
    assert (omega[:8] @ omega[8:16].T).abs().max() > 0.5


def test_directions_are_those_of_a_qr_whose_r_has_a_positive_diagonal():
    # The one that has such an R is uniform, whatever the library's signs.
    drawn_first = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    R = drawn(16, 8, scaling=1).unflatten(0, (2, 8)) / 8**0.5 @ drawn_first
    assert_close(R.tril(-1), torch.zeros_like(R), rtol=0, atol=1e-5)
    assert (R.diagonal(dim1=1, dim2=2) > 0).all()


def test_lengths_are_those_of_independent_normal_vectors():
    omega = drawn(8 * 3000)
    squares = omega.square().sum(1)
    # Chi-squared of eight degrees: mean 8, variance 16.
    assert squares.mean().item() == pytest.approx(8, abs=0.1)
    assert squares.var().item() == pytest.approx(16, abs=0.7)
    neighbours = squares.unflatten(0, (-1, 8)) - 8
    assert (neighbours[:, 0] * neighbours[:, 1]).mean().abs() < 1


def estimate(omega, q, k):
    """The mean over ω of the product of the paper's features, without c and ε; its standard error beside it."""
    q, k = (x * len(x) ** -0.25 for x in (q, k))
    products = (omega @ (q + k) - (q.square().sum() + k.square().sum()) / 2).exp()
    return products.mean().item(), (products.std() / len(products) ** 0.5).item()


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_products_of_features_are_softmaxs_kernel_on_average(width):
    q, k = torch.eye(2, width).double() + 0.2
    mean, error = estimate(drawn(width * 60_000, width), q, k)
    assert error < 0.02
    assert mean == pytest.approx(math.exp(q @ k / width**0.5), abs=4 * error)


def test_rows_point_everywhere_and_the_packages_do_not():
    # Plain QR gives a first row whose first number is never positive, so ω is no normal vector and the kernel is off.
    generator = torch.Generator().manual_seed(0)
    ours = torch.stack([random_features(2, 2, 0, generator) for _ in range(20_000)]).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torch.stack([PACKAGE.orthogonal_matrix_chunk(2) for _ in range(20_000)]).double()
    assert (theirs[:, 0, 0] <= 0).all()
    assert (ours[:, 0, 0] <= 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    # Uniform directions: no mean, and two axes alike.
    assert ours.mean(0).abs().max() < 0.05
    q, k = torch.tensor([1.5, 0.0]).double(), torch.tensor([1.0, 0.0]).double()
    lengths = torch.randn(20_000, 2, 2, generator=generator).norm(dim=2, keepdim=True)
    exact = math.exp(q @ k / 2**0.5)
    mean, error = estimate(ours.flatten(0, 1), q, k)
    assert mean == pytest.approx(exact, abs=4 * error)
    mean, error = estimate((theirs * lengths).flatten(0, 1), q, k)
    assert abs(mean - exact) > 10 * error
    assert abs(mean - exact) > 0.1 * exact


def test_many_features_come_near_softmax():
    q, k, v = heads(12, scale=0.5)
    softmax = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    errors = [(performer_attention(q, k, v, drawn(rows)) - softmax).norm() / softmax.norm() for rows in (8, 80_000)]
    assert errors[1] < 0.02 < errors[0]


@pytest.mark.parametrize("features", [1, 60, 200, 10**9])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_size_of_a_tile_changes_nothing(monkeypatch, kernel, features):
    monkeypatch.setattr(performer, "_TILE_FEATURES", features)
    leaves, omega = heads(20, scale=2.0, rows=7), drawn()
    seen, expected = performer_attention(*leaves, omega, kernel), performer._by_features(*leaves, omega, kernel)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("at_once", [1, 3, 5, 6, 7, 10, 20, 41, 10**6])
def test_tiles_cover_every_token_of_every_head_once_in_order(monkeypatch, at_once):
    monkeypatch.setattr(performer, "_TILE_FEATURES", at_once)
    x = torch.zeros(3, 2, 7, 1)
    for few in performer._tiles(x, torch.zeros(1, 1)):
        assert 0 < x[few].shape[:3].numel() <= at_once
        # All of a head's earlier tokens are done.
        assert (x[few[0], few[1], : few[2].start] == 1).all()
        x[few] += 1
    assert (x == 1).all()


def test_nothing_is_kept_for_backward_but_inputs_output_and_sums():
    leaves, omega, kept = heads(600, dtype=torch.float32), drawn(48).float(), {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = performer_attention(*leaves, omega)
    needed = 4 * y.numel() * y.element_size()
    assert needed <= sum(kept.values()) < 1.3 * needed
    # The features of queries and keys would be 3 x that.
    assert 2 * 600 * 48 * 4 * y.element_size() == 3 * needed


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [0.0, 40.0, 300.0])
def test_tokens_of_any_size_give_numbers(kernel, size):
    leaves, omega = heads(30, scale=size, dtype=torch.float32), drawn().float()
    y = performer_attention(*leaves, omega, kernel)
    assert all(values.isfinite().all() for values in (y, *slopes(y, leaves)))
    # Weights are positive and sum to one.
    assert y.abs().max() <= leaves[2].abs().max() * 1.0001


def test_sums_are_exact_where_bf16_would_stop_counting():
    # A sum in bf16 stays at 256, since 256 + 1 is 256 there.
    q, k, v = (torch.ones(1, 2, 2000, 4, dtype=torch.bfloat16) for _ in range(3))
    assert_close(performer_attention(q, k, v, drawn(16, 4).float()), v)


def test_autocast_reaches_neither_direction():
    leaves, omega = heads(50, dtype=torch.float32), drawn().float()
    expected = performer_attention(*leaves, omega)
    expected_slopes = slopes(expected, leaves)
    with torch.autocast("cpu", torch.bfloat16):
        seen = performer_attention(*leaves, omega)
        seen_slopes = slopes(seen, leaves)
    assert torch.equal(seen, expected)
    assert_close(seen_slopes, expected_slopes, rtol=0, atol=0)


def test_omega_is_saved_and_stays_float32_in_a_half_precision_model():
    layer = build("performer", DIM, HEADS, Tokens((4, 4)))
    before = layer.state_dict()["omega"].clone()
    layer.bfloat16()
    assert layer.qkv.weight.dtype == torch.bfloat16
    assert layer.state_dict()["omega"].dtype == torch.float32
    assert torch.equal(layer.omega, before)
    layer.float()
    assert torch.equal(layer.omega, before)
    assert layer.double().omega.dtype == torch.float64
    with torch.device("meta"):
        empty = build("performer", DIM, HEADS, Tokens((4, 4))).bfloat16()
    assert empty.omega.is_meta
    assert empty.omega.dtype == torch.float32


def test_omega_is_drawn_anew_in_training_every_so_many_steps():
    layer = build("performer(redraw=10)", DIM, HEADS, Tokens((4, 4)))
    start = layer.omega.clone()
    changed = []
    for step in range(31):
        before = layer.omega.clone()
        layer.advance(step, seeded(step)("omega"))
        if not torch.equal(layer.omega, before):
            changed.append(step)
            assert torch.equal(layer.omega, random_features(128, DIM // HEADS, 0, seeded(step)("omega")))
    assert changed == [10, 20, 30]
    assert not torch.equal(layer.omega, start)


@pytest.mark.parametrize(("text", "training"), [("performer(redraw=0)", True), ("performer(redraw=10)", False)])
def test_omega_stays_without_redraw_and_outside_training(text, training):
    layer = build(text, DIM, HEADS, Tokens((4, 4))).train(training)
    before = layer.omega.clone()
    for step in range(30):
        layer.advance(step, seeded(step)("omega"))
    assert torch.equal(layer.omega, before)


def test_in_a_model_each_layer_has_features_of_its_own_by_seed_and_step():
    def omegas(seed):
        shape = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
        model = create_model("vit", attention="performer(redraw=2)", seed=0, **shape)
        for step in range(3):
            model.advance(step, seed)
        return [block.attn.omega for block in model.blocks]

    first, again, other = omegas(1), omegas(1), omegas(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_scaling_reaches_the_layer():
    layer = build("performer(scaling=1, features=30)", DIM, HEADS, Tokens((4, 4)))
    assert_close(layer.omega.norm(dim=1), torch.full((30,), 8**0.5))
    assert build("performer", DIM, HEADS, Tokens((4, 4))).omega.norm(dim=1).std() > 0.3


@pytest.mark.parametrize("options", ["features=7", "features=300", 'features=7,kernel="relu",redraw=3'])
def test_parameters_are_four_projections(options):
    layer = build(f"performer({options})", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


def test_its_cost_grows_with_the_number_of_tokens():
    layer = build("performer", 64, 4, Tokens((100, 100)))
    assert layer.mix_flops(10_000, 10_000) == 10 * layer.mix_flops(1_000, 1_000)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("features=0", "features must be a whole number of at least 1"),
        ("redraw=-1", "redraw must be a whole number of at least 0"),
        ("features=True", "features must be a whole number of at least 1"),
        ("scaling=2", "scaling must be 0 or 1"),
        ("scaling=True", "scaling must be 0 or 1"),
        ("nb_features=8", "did you mean features?"),
    ],
)
def test_what_makes_no_sense_is_refused(options, says):
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        build(f"performer({options})", DIM, HEADS, Tokens((4, 4)))


def test_another_kernel_is_refused():
    # The tests' own checks of types would refuse it first.
    unchecked = inspect.unwrap(Performer.__init__)
    with pytest.raises(ValueError, match=r"performer\(kernel='elu'\): kernel must be \"softmax\" or \"relu\""):
        unchecked(Performer.__new__(Performer), DIM, HEADS, Tokens((3, 4)), kernel="elu")
