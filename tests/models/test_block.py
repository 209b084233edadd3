"""A block: wanted rows, stochastic depth by given noise, layer scale, visible patches."""

import pytest
import torch
from tests.peers import timm  # noqa: F401
from torch.nn import functional
from torch.testing import assert_close

from saccade.attention import build
from saccade.attention.initial import seeded
from saccade.attention.tokens import Tokens
from saccade.models.block import Block

TOKENS = Tokens((3, 4), prefix=2)


def block(attention: str = "softmax", **options) -> Block:
    torch.manual_seed(0)
    made = Block(build(attention, 8, 2, TOKENS), 16, **options).double()
    made.reset_parameters(seeded(1))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def tokens(images: int = 3) -> torch.Tensor:
    return torch.randn(images, TOKENS.count, 8, dtype=torch.float64)


@pytest.mark.parametrize("mlp_layer", ["mlp", "swiglu"])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, None), slice(5, 9)])
def test_wanted_rows_are_the_rows_of_the_whole(mlp_layer, rows):
    made, x = block(mlp_layer=mlp_layer, init_values=0.1), tokens()
    assert_close(made(x, outputs=rows), made(x)[:, rows])


def test_wanted_rows_keep_the_gradients():
    made, x = block(), tokens().requires_grad_()
    parts = (x, *made.parameters())
    assert_close(
        torch.autograd.grad(made(x, outputs=slice(0, 1)).square().sum(), parts),
        torch.autograd.grad(made(x)[:, :1].square().sum(), parts),
    )


def test_the_attention_is_told_which_patches_are_visible():
    made, x = block("softmax(rope=True)"), tokens()
    ids = torch.tensor([[0, 5, 7]]).expand(3, -1)
    seen = torch.cat([x[:, :2], x[:, 2:][:, [0, 5, 7]]], dim=1)
    expected = seen + made.attn.reference(made.norm1(seen), ids)
    assert_close(made(seen, patches=ids), expected + made.mlp(made.norm2(expected)))


def xformers_formula(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Attention behind a norm, then norm(y + MLP(norm(y))), two heads, written out in plain functions."""

    def norm(name, y):
        return functional.layer_norm(y, y.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def linear(name, y):
        return functional.linear(y, weights[f"{name}.weight"], weights[f"{name}.bias"])

    normed = norm("norm1", x)
    q, k, v = (linear(f"attn.qkv.{one}_proj", normed).unflatten(-1, (2, -1)).transpose(1, 2) for one in "qkv")
    mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    y = x + linear("attn.proj", mixed.transpose(1, 2).flatten(2))
    return norm("post_norm", y + linear("mlp.fc2", functional.gelu(linear("mlp.fc1", norm("norm2", y)))))


@pytest.mark.parametrize("rows", [None, slice(0, 1), slice(3, 7)])
def test_the_xformers_style_is_its_formula(rows):
    made, x = block(style="xformers"), tokens().requires_grad_()
    weights = dict(made.named_parameters())
    seen = made(x, outputs=rows)
    expected = xformers_formula(weights, x) if rows is None else xformers_formula(weights, x)[:, rows]
    assert_close(seen, expected)
    leaves = (x, *weights.values())
    assert_close(torch.autograd.grad(seen.sin().sum(), leaves), torch.autograd.grad(expected.sin().sum(), leaves))


def test_the_xformers_style_starts_as_the_other_and_normalises_what_that_puts_out():
    plain, other = (Block(build("softmax", 8, 2, TOKENS), 16, style=style) for style in ("pre", "xformers"))
    torch.nn.init.zeros_(other.post_norm.weight)
    for made in (plain, other):
        made.reset_parameters(seeded(3))
    x = tokens().float()
    assert_close(other(x), functional.layer_norm(plain(x), (8,), eps=1e-6))


def test_layer_scale_and_stochastic_depth_act_inside_the_last_norm():
    made, x = block(style="xformers", init_values=0.1, drop_path=0.5), tokens()
    noise = torch.tensor([[0.9, 0.1]], dtype=torch.float64).expand(3, -1)
    attended = x + 2 * made.ls1.gamma * made.attn(made.norm1(x))
    assert_close(made(x, noise=noise), made.post_norm(attended))


@pytest.mark.parametrize("attention", ["fourier", "lambda", "pooling"])
def test_an_attention_without_the_usual_projections_keeps_its_own_in_the_xformers_style(attention):
    made, other = block(attention), block(attention, style="xformers")
    assert set(other.state_dict()) - set(made.state_dict()) == {"post_norm.weight", "post_norm.bias"}
    assert other(tokens()).isfinite().all()


def test_noise_below_the_rate_skips_a_branch_and_the_others_grow():
    made, x = block(drop_path=0.25), tokens()
    noise = torch.tensor([[0.9, 0.9], [0.1, 0.9], [0.9, 0.1]], dtype=torch.float64)
    attended = x + made.attn(made.norm1(x)) / 0.75
    expected = torch.stack(
        [
            (attended + made.mlp(made.norm2(attended)) / 0.75)[0],
            (x + made.mlp(made.norm2(x)) / 0.75)[1],
            attended[2],
        ]
    )
    assert_close(made(x, noise=noise), expected)


def test_without_noise_no_image_skips():
    x = tokens()
    assert_close(block(drop_path=0.25)(x), block()(x))
    assert_close(block()(x, noise=torch.zeros(3, 2, dtype=torch.float64)), block()(x))


def test_dropout_acts_behind_the_projection_of_the_attention():
    made, x = block(proj_drop=0.5), tokens()
    made.mlp = torch.nn.Identity()
    made.norm2 = torch.nn.Identity()
    halved = (made(x) / 2 - x).abs() < 1e-12
    assert 0.3 < halved.double().mean() < 0.7


@pytest.mark.parametrize("options", [{}, {"init_values": 0.1}, {"mlp_layer": "swiglu"}])
def test_weights_and_values_are_those_of_timm(options):
    from timm.layers import SwiGLU
    from timm.models.vision_transformer import Block as Peer

    made, x = block(**options), tokens()
    named = {"mlp_layer": SwiGLU, "act_layer": torch.nn.SiLU} if "mlp_layer" in options else options
    peer = Peer(8, 2, mlp_ratio=2, qkv_bias=True, **named).double()
    peer.load_state_dict(made.state_dict())
    assert_close(made(x), peer(x))


def test_layer_scale_starts_where_it_is_told():
    made = Block(build("softmax", 8, 2, TOKENS), 16, init_values=0.25)
    torch.nn.init.zeros_(made.ls1.gamma)
    made.reset_parameters(seeded(0))
    assert torch.equal(made.ls1.gamma, torch.full((8,), 0.25))
    assert torch.equal(made.ls2.gamma, torch.full((8,), 0.25))
