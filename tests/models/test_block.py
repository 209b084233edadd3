"""A block: wanted rows, stochastic depth by given noise, layer scale, visible patches."""

import pytest
import torch
from tests.peers import timm  # noqa: F401
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
