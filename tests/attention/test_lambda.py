"""Lambda layers against lambda-networks and timm, and the sums over pairs written out."""

import pytest
import torch
from lambda_networks import LambdaLayer
from tests.attention.agreement import enliven, images, lively, slopes, visible
from tests.peers import timm
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saccade.attention import Tokens, build
from saccade.attention.initial import seeded

# The package builds its table of distances so.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

DIM, HEADS, K = 24, 3, 5
GRID = (4, 4)


def on_grid(x):
    """Tokens as the peers take them: (b, channels, rows, columns)."""
    return x.mT.unflatten(2, GRID)


def assert_same(layer, theirs, shared):
    """Checks output and gradients in training and in eval mode, and the statistics in between.

    `shared` gives a peer's parameter for each of ours, in our shape.
    """
    x = images(3, 16, DIM).requires_grad_()
    for training in (True, False):
        layer.train(training), theirs.train(training)
        y, expected = layer(x), theirs(on_grid(x)).flatten(2).mT
        assert_close(y, expected)
        names, ours = zip(*((name, layer.get_parameter(name)) for name in shared), strict=True)
        leaves = [x, *(parameter for parameter, _ in shared.values())]
        found, wanted = slopes(y, [x, *ours]), slopes(expected, leaves)
        shapes = [lambda gradient: gradient, *(as_ours for _, as_ours in shared.values())]
        for name, gradient, other, as_ours in zip(("x", *names), found, wanted, shapes, strict=True):
            assert_close(gradient, as_ours(other), msg=lambda text, name=name: f"{name}: {text}")
    for ours_, other in ((layer.norm_q, theirs.norm_q), (layer.norm_v, theirs.norm_v)):
        assert_close(ours_.running_mean, other.running_mean)
        assert_close(ours_.running_var, other.running_var)


def same_norms(layer, theirs):
    for name in ("norm_q", "norm_v"):
        own, other = getattr(layer, name), getattr(theirs, name)
        other.weight.data, other.bias.data = own.weight.data.clone(), own.bias.data.clone()


@pytest.mark.parametrize("u", [1, 2])
@pytest.mark.parametrize(("position", "r"), [("conv", 3), ("conv", 9), ("table", 9)])
def test_it_is_the_packages_layer(position, r, u):
    layer = lively(f'lambda(k={K},u={u},position="{position}",r={r},qkv_bias=False)', DIM, HEADS, Tokens(GRID))
    place = {"r": r} if position == "conv" else {"n": GRID[0]}
    theirs = LambdaLayer(DIM, dim_k=K, heads=HEADS, dim_u=u, **place).double()
    same_norms(layer, theirs)
    q, k, v = layer.qkv.weight.detach().split(layer.widths)
    for conv, weight in ((theirs.to_q, q), (theirs.to_k, k), (theirs.to_v, v)):
        conv.weight.data = weight[:, :, None, None].clone()
    shared = {"norm_q.weight": (theirs.norm_q.weight, lambda g: g), "norm_v.bias": (theirs.norm_v.bias, lambda g: g)}
    if position == "conv":
        theirs.pos_conv.weight.data = layer.E.detach()[:, :, None].clone()
        theirs.pos_conv.bias.data = layer.E_bias.detach().clone()
        shared["E"] = (theirs.pos_conv.weight, lambda g: g[:, :, 0])
        shared["E_bias"] = (theirs.pos_conv.bias, lambda g: g)
    else:
        theirs.rel_pos_emb.data = layer.E.detach().permute(2, 3, 0, 1).clone()
        shared["E"] = (theirs.rel_pos_emb, lambda g: g.permute(2, 3, 0, 1))
    assert_same(layer, theirs, shared)


@pytest.mark.parametrize("position", ["conv", "table"])
def test_it_is_timms_layer(position):
    layer = lively(f'lambda(k={K},position="{position}",r=5)', DIM, HEADS, Tokens(GRID))
    place = {"r": 5} if position == "conv" else {"r": None, "feat_size": GRID}
    theirs = timm.layers.lambda_layer.LambdaLayer(
        DIM, num_heads=HEADS, dim_head=K, qkv_bias=True, dtype=torch.float64, **place
    )
    same_norms(layer, theirs)
    theirs.qkv.weight.data = layer.qkv.weight.detach()[:, :, None, None].clone()
    theirs.qkv.bias.data = layer.qkv.bias.detach().clone()
    shared = {"qkv.weight": (theirs.qkv.weight, lambda g: g[:, :, 0, 0]), "qkv.bias": (theirs.qkv.bias, lambda g: g)}
    if position == "conv":
        theirs.conv_lambda.weight.data = layer.E.detach()[..., None].clone()
        theirs.conv_lambda.bias.data = layer.E_bias.detach().clone()
        shared["E"] = (theirs.conv_lambda.weight, lambda g: g[..., 0])
    else:
        theirs.pos_emb.data = layer.E.detach()[:, 0].permute(1, 2, 0).clone()
        shared["E"] = (theirs.pos_emb, lambda g: g.permute(2, 0, 1)[:, None])
    assert_same(layer, theirs, shared)


@pytest.mark.parametrize(("position", "r"), [("conv", 3), ("conv", 11), ("table", 9)])
def test_positions_add_the_sum_over_visible_patches_by_their_distance(position, r):
    """The content reaches every token, so only the difference shows what the positions do."""
    tokens = Tokens((3, 4), prefix=2)
    layer = lively(f'lambda(k={K},position="{position}",r={r})', DIM, HEADS, tokens).eval()
    without = lively(f'lambda(k={K},position="none")', DIM, HEADS, tokens).eval()
    shared = {name: value for name, value in layer.state_dict().items() if name not in ("E", "E_bias")}
    without.load_state_dict(shared)
    ids, x = visible(2, tokens, 7), images(2, 9, DIM)
    seen = layer(x, ids) - without(x, ids)
    q, _, v = layer.qkv(x).split(layer.widths, dim=-1)
    q, v = layer.norm_q(q).unflatten(-1, (HEADS, K)), layer.norm_v(v)
    expected = torch.zeros(2, 9, HEADS, DIM // HEADS, dtype=torch.float64)
    middle = [side // 2 for side in layer.E.shape[2:]]
    for image in range(2):
        for n, place in enumerate(ids[image].tolist()):
            of_patch = torch.zeros(K, DIM // HEADS, dtype=torch.float64)
            if layer.E_bias is not None:
                of_patch += layer.E_bias[:, None]
            for m, other in enumerate(ids[image].tolist()):
                down, right = other // 4 - place // 4, other % 4 - place % 4
                if abs(down) <= middle[0] and abs(right) <= middle[1]:
                    embedding = layer.E[:, 0, down + middle[0], right + middle[1]]
                    of_patch = of_patch + embedding[:, None] * v[image, 2 + m]
            expected[image, 2 + n] = q[image, 2 + n] @ of_patch
    assert_close(seen, expected.flatten(2))


def test_the_content_lambda_is_one_linear_function_for_all_tokens():
    layer = lively(f'lambda(k={K},position="none",norm="none")', DIM, HEADS, Tokens((3, 4), 1))
    x = images(1, 13, DIM)
    q, k, v = layer.qkv(x)[0].split(layer.widths, dim=-1)
    content = sum(torch.outer(weight, value) for weight, value in zip(k.softmax(0), v, strict=True))
    expected = torch.stack([torch.cat([head @ content for head in row.chunk(HEADS)]) for row in q])
    assert_close(layer(x)[0], expected)


def test_every_tap_of_the_convolution_sees_patches():
    layer = lively("lambda", 32, 2, Tokens((7, 7), 1))
    x = images(2, 50, 32)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), layer.E)
    assert (slope.abs() > 1e-6).all()


@pytest.mark.parametrize(
    ("options", "dim", "heads", "count"),
    [
        ("", 128, 8, 22_240),
        ("", 512, 16, 157_840),
        ('(position="none")', 128, 8, 20_928),
        ('(position="none",qkv_bias=False)', 128, 8, 20_768),
        ('(norm="layer")', 128, 8, 22_240),
        ('(norm="none")', 128, 8, 22_240 - 2 * (8 * 16 + 16)),
        ('(position="table")', 128, 8, 20_928 + 13 * 15 * 16),
        ("(u=2)", 128, 8, 22_240 + 128 * 32 + 32 + 2 * 16 + 81 * 16),
    ],
)
def test_it_has_as_many_parameters_as_published(options, dim, heads, count):
    layer = build(f"lambda{options}", dim, heads, Tokens((7, 8), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


def test_without_positions_it_starts_as_with_them():
    tokens = Tokens((3, 4), 1)
    whole, content = build("lambda", DIM, HEADS, tokens), build('lambda(position="none")', DIM, HEADS, tokens)
    for layer in (whole, content):
        layer.reset_parameters(seeded(0))
    expected = content.state_dict()
    assert set(whole.state_dict()) - set(expected) == {"E", "E_bias"}
    assert_close({name: whole.state_dict()[name] for name in expected}, expected)


def test_positions_cost_no_table_of_pairs():
    tokens = Tokens((16, 16))
    layer, x = build('lambda(position="table")', 32, 8, tokens), torch.randn(1, 256, 32, requires_grad=True)
    with Largest() as largest:
        layer(x).sum().backward()
    assert largest.values < tokens.patches**2


class Largest(TorchDispatchMode):
    """Notes how many values the largest tensor had."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.values = max(self.values, *(leaf.numel() for leaf in tree_leaves(made) if hasattr(leaf, "numel")), 0)
        return made


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_norms_are_torchs(norm):
    layer = lively(f'lambda(k={K},norm="{norm}",position="none")', DIM, HEADS, Tokens(GRID))
    x = images(2, 16, DIM)
    q, k, v = layer.qkv(x).split(layer.widths, dim=-1)
    kinds = {"batch": torch.nn.BatchNorm1d, "layer": torch.nn.LayerNorm, "none": lambda width: torch.nn.Identity()}
    norm_q, norm_v = (kinds[norm](y.shape[-1]).double() for y in (q, v))
    norm_q.load_state_dict(layer.norm_q.state_dict(), strict=False)
    norm_v.load_state_dict(layer.norm_v.state_dict(), strict=False)
    q, v = (of(y.flatten(0, 1)).view_as(y) for of, y in ((norm_q, q), (norm_v, v)))
    content = k.softmax(1).mT @ v
    assert_close(layer(x), (q.unflatten(-1, (HEADS, K)) @ content[:, None]).flatten(2))


def test_a_table_for_another_grid_keeps_its_middle_and_sums_of_what_varies_slowly():
    layer = build('lambda(position="table")', DIM, HEADS, Tokens((4, 6), 1)).double()
    with torch.no_grad():
        layer.E.fill_(1.0)
        layer.E[:, :, 3, 5] = 2.0
    finer = layer.regrid(Tokens((8, 12), 1))
    assert finer.E.shape == (16, 1, 15, 23)
    assert_close(finer.E[:, :, 0, 0], torch.full((16, 1), 0.25, dtype=torch.float64))
    assert (finer.E[:, :, 7, 11] == finer.E.amax((2, 3))).all()
    same = lively("lambda", DIM, HEADS, Tokens((4, 6), 1))
    assert torch.equal(same.regrid(Tokens((8, 12), 1)).E, same.E)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("k=0", "k must be a whole number of at least 1"),
        ("u=0", "u must be a whole number"),
        ("r=8", "r must be odd"),
    ],
)
def test_options_that_are_wrong_at_any_size_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(f"lambda({options})", DIM, HEADS, Tokens(GRID))


def test_training_on_a_single_token_is_refused():
    layer = build("lambda", DIM, HEADS, Tokens((1, 1)))
    x = torch.randn(1, 1, DIM)
    with pytest.raises(ValueError, match='norm="layer"'):
        layer(x)
    assert layer(torch.randn(2, 1, DIM)).isfinite().all()
    assert layer.eval()(x).isfinite().all()


def test_its_convolution_may_exceed_the_grid():
    layer = build("lambda(r=15)", DIM, HEADS, Tokens((2, 3), 1)).double().eval()
    enliven(layer)
    x = images(2, 7, DIM)
    assert_close(layer(x), layer.reference(x))


@pytest.mark.parametrize(("position", "std"), [("conv", 16**-0.5), ("table", 0.02)])
def test_positions_start_as_timms(position, std):
    torch.manual_seed(0)
    layer = build(f'lambda(position="{position}",r=23)', DIM, HEADS, Tokens((12, 12)))
    assert layer.E.std().item() == pytest.approx(std, rel=0.05)
