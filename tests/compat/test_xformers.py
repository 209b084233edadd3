"""xFormers' deleted attentions by their names: against torch, two packages and the formulas written out."""

import pytest
import torch
from linformer import LinformerSelfAttention
from nystrom_attention import NystromAttention as LucidrainsNystrom
from tests.attention.agreement import enliven
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from saccade.compat import xformers
from saccade.compat.xformers import (
    ATTENTION_REGISTRY,
    AttentionMask,
    CompositionalAttention,
    FavorAttention,
    FeatureMapType,
    FourierMix,
    GlobalAttention,
    LambdaLayer,
    LandmarkSelection,
    LinformerAttention,
    LocalAttention,
    MultiHeadDispatch,
    NystromAttention,
    OrthoFormerAttention,
    Pooling,
    RandomAttention,
    ScaledDotProduct,
    Visual,
    build_attention,
    build_multi_head_attention,
)

HEADS, N, E = 3, 13, 8
TOKENS = torch.zeros(N, 1, dtype=torch.bool)
TOKENS[[0, 5]] = True


def qkv(images=2, n=N, width=E, of_values=E):
    """Folded q, k, v that can have gradients."""
    generator = torch.Generator().manual_seed(0)
    widths = (width, width, of_values)
    return [
        torch.randn(images * HEADS, n, w, generator=generator, dtype=torch.float64).requires_grad_() for w in widths
    ]


def formula(q, k, v, keep=None, bias=0.0):
    """Softmax of the kept scores, row by row."""
    scores = torch.einsum("gie,gje->gij", q, k) / q.shape[-1] ** 0.5 + bias
    weights = scores.exp() if keep is None else scores.exp() * keep
    return torch.einsum("gij,gjd->gid", weights / weights.sum(-1, keepdim=True), v)


def slopes(y, leaves):
    """Gradients of a weighted sum of y; one expected value serves several comparisons."""
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return torch.autograd.grad((y * weights).sum(), leaves, retain_graph=True)


def assert_same(y, expected, leaves):
    assert_close(y, expected)
    assert_close(slopes(y, leaves), slopes(expected, leaves))


def made(name):
    """Each attention at small options."""
    whole = {
        "name": name,
        "dropout": 0.0,
        # Those that have heads of their own see one head of an image as whole tokens.
        "num_heads": 2 if name == "compositional" else HEADS,
        "num_landmarks": 4,
        "seq_len": N,
        "dim_head": E,
        "dim_model": E,
        "attention_query_mask": TOKENS,
        "window_size": 3,
        "r": 0.3,
        "k": 4,
        "grid": (1, N),
        "causal": False,
        "conv_kernel_size": 3,
    }
    layer = build_attention(whole).double()
    enliven(layer)
    return layer.eval()


every_attention = pytest.mark.parametrize("name", ATTENTION_REGISTRY)


@every_attention
def test_heads_may_be_folded_into_the_batch_or_not(name):
    layer, (q, k, v) = made(name), qkv()
    folded = layer(q, k, v)
    assert folded.shape == v.shape
    apart = (x.unflatten(0, (2, HEADS)) for x in (q, k, v))
    assert_close(layer(*apart), folded.unflatten(0, (2, HEADS)))


@every_attention
def test_heads_of_images_do_not_mix(name):
    layer, (q, k, v) = made(name), qkv()
    assert_close(layer(q[HEADS:], k[HEADS:], v[HEADS:]), layer(q, k, v)[HEADS:])


@every_attention
def test_every_q_k_v_that_counts_has_a_gradient(name):
    layer, leaves = made(name), qkv()
    counting = leaves if layer.requires_input_projection else leaves[:1]
    weights = [] if name == "compositional" else list(layer.parameters())
    for slope in slopes(layer(*leaves), [*counting, *weights]):
        assert slope.abs().max() > 0


@every_attention
def test_bf16_is_near(name):
    layer, (q, k, v) = made(name), qkv()
    halves = [x.detach().bfloat16() for x in (q, k, v)]
    expected = layer(*(x.double() for x in halves))
    y = layer.bfloat16()(*halves)
    assert y.dtype == torch.bfloat16
    assert (y - expected).norm() < 0.03 * expected.norm()


@every_attention
def test_a_layer_loaded_from_the_state_is_the_same_function(name):
    layer, tokens = made(name), qkv()
    torch.manual_seed(5)
    other = made(name)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(*tokens), layer(*tokens))


@every_attention
def test_what_is_drawn_in_training_is_dropout_alone_and_nothing_in_eval(name):
    layer, tokens = made(name), qkv()
    assert torch.equal(layer.train()(*tokens), layer.eval()(*tokens))
    if name not in ("pooling", "visual"):
        layer.attn_drop.p = 0.5
        assert not torch.equal(layer.train()(*tokens), layer(*tokens))
        assert torch.equal(layer.eval()(*tokens), layer(*tokens))


@every_attention
def test_a_mask_that_would_be_overlooked_is_refused(name):
    layer, tokens = made(name), qkv()
    if not layer.supports_attention_mask:
        with pytest.raises(ValueError, match="takes no att_mask"):
            layer(*tokens, att_mask=torch.ones(N, N, dtype=torch.bool))
    if not layer.supports_key_padding_mask:
        with pytest.raises(ValueError, match="takes no key_padding_mask"):
            layer(*tokens, key_padding_mask=torch.ones(2, N, dtype=torch.bool))


# Softmax over some of the pairs.


def test_scaled_dot_product_is_softmax():
    q, k, v = qkv(of_values=5)
    assert_same(ScaledDotProduct()(q, k[:, :7], v[:, :7]), formula(q, k[:, :7], v[:, :7]), [q, k, v])


@pytest.mark.parametrize("images", [1, 2])
def test_a_mask_for_each_image_acts_on_its_own_heads(images):
    q, k, v = qkv(images)
    keep = torch.rand(images, N, N, generator=torch.Generator().manual_seed(1)) < 0.5
    keep |= torch.eye(N, dtype=torch.bool)
    for_heads = torch.stack([keep[group // HEADS] for group in range(images * HEADS)])
    expected = formula(q, k, v, for_heads)
    added = torch.zeros(images, N, N).masked_fill(~keep, float("-inf"))
    for mask in (keep, for_heads, for_heads.unflatten(0, (images, HEADS)), added, AttentionMask.from_bool(keep)):
        assert_same(ScaledDotProduct()(q, k, v, att_mask=mask), expected, [q, k, v])


def test_a_mask_may_be_a_bias():
    q, k, v = qkv()
    bias = torch.randn(N, N, dtype=torch.float64)
    assert_same(ScaledDotProduct()(q, k, v, bias), formula(q, k, v, bias=bias), [q, k, v])


def test_a_query_that_may_see_nothing_gives_0_and_no_nan():
    q, k, v = qkv()
    keep = torch.ones(N, N, dtype=torch.bool)
    keep[3] = False
    y = ScaledDotProduct()(q, k, v, keep)
    assert not y[:, 3].any()
    assert_close(y[:, 4], formula(q, k, v)[:, 4])
    assert all(slope.isfinite().all() for slope in slopes(y, [q, k, v]))


@pytest.mark.parametrize("shape", [(N, N - 1), (4, N, N), (N,)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"att_mask of shape .* must be \(13, 13\)"):
        ScaledDotProduct()(*qkv(), torch.ones(shape, dtype=torch.bool))


def test_causal_is_torchs():
    q, k, v = qkv()
    expected = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_same(ScaledDotProduct(causal=True)(q, k, v), expected, [q, k, v])
    assert_same(ScaledDotProduct(causal=True, seq_len=20)(q, k, v), expected, [q, k, v])
    mask = AttentionMask.make_causal(N)
    assert mask.to_bool().equal(torch.ones(N, N).tril().bool())
    assert_close((mask + mask).values, mask.values)
    with pytest.raises(ValueError, match="at most 12 queries was given 13"):
        ScaledDotProduct(causal=True, seq_len=12)(q, k, v)


def test_a_key_padding_mask_can_be_given_as_the_refusal_says():
    q, k, v = qkv()
    key_padding_mask = torch.arange(N) < torch.tensor([[N], [6]])
    with pytest.raises(ValueError, match=r"give att_mask=key_padding_mask\[:, None, :\].expand\(-1, queries, -1\)"):
        ScaledDotProduct()(q, k, v, key_padding_mask=key_padding_mask)
    y = ScaledDotProduct()(q, k, v, att_mask=key_padding_mask[:, None, :].expand(-1, N, -1))
    assert_close(y[HEADS:], formula(q, k[:, :6], v[:, :6])[HEADS:])
    assert_close(y[:HEADS], formula(q, k, v)[:HEADS])


def band(n, earlier, later):
    return torch.tensor([[-earlier <= j - i <= later for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("window_size", [1, 3, 5, 25, 41])
@pytest.mark.parametrize("causal", [False, True])
def test_local_is_softmax_over_a_band(window_size, causal):
    q, k, v = qkv()
    near = band(N, window_size, 0) if causal else band(N, window_size // 2, window_size // 2)
    layer = LocalAttention(causal=causal, window_size=window_size)
    assert_same(layer(q, k, v), formula(q, k, v, near), [q, k, v])
    # In xFormers this raised a TypeError.
    keep = torch.rand(N, N, generator=torch.Generator().manual_seed(1)) < 0.7
    keep |= torch.eye(N, dtype=torch.bool)
    for mask in (keep, AttentionMask.from_bool(keep)):
        assert_same(layer(q, k, v, mask), formula(q, k, v, near & keep), [q, k, v])


@pytest.mark.parametrize("causal", [False, True])
def test_global_is_softmax_over_global_rows_columns_and_the_diagonal(causal):
    q, k, v = qkv()
    chosen = TOKENS[:, 0]
    seen = torch.tensor([[bool(chosen[i] | chosen[j]) or i == j for j in range(N)] for i in range(N)])
    seen &= torch.ones(N, N).tril().bool() if causal else True
    layer = GlobalAttention(0.0, TOKENS, causal=causal)
    assert_same(layer(q, k, v), formula(q, k, v, seen), [q, k, v])
    keep = band(N, 8, 8)
    assert_same(layer(q, k, v, keep), formula(q, k, v, seen & keep), [q, k, v])


def test_global_of_a_shorter_sequence_has_no_keys_that_are_not_there():
    q, k, v = qkv(n=9)
    expected = GlobalAttention(0.0, TOKENS[:9])(q, k, v)
    assert_close(GlobalAttention(0.0, TOKENS)(q, k, v), expected)
    assert_close(GlobalAttention(0.0, TOKENS, causal=True)(q, k, v), GlobalAttention(0.0, TOKENS[:9], True)(q, k, v))
    with pytest.raises(ValueError, match="at most 9 tokens was given 13"):
        GlobalAttention(0.0, TOKENS[:9])(*qkv())


def drawn(layer, n=64):
    """Which pairs the layer lets through, read off its output."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, n, E, generator=generator)
    return layer(q, k, torch.eye(n)[None])[0] > 0


def test_random_lets_through_its_share_and_every_token_itself():
    seen = drawn(RandomAttention(0.0, r=0.1))
    assert seen.diagonal().all()
    assert 0.07 < seen.float().mean() < 0.15
    assert drawn(RandomAttention(0.0, r=1.0)).all()
    assert not drawn(RandomAttention(0.0, r=0.5, causal=True)).triu(1).any()


def test_random_is_softmax_over_what_it_lets_through():
    q, k, v = qkv()
    layer = RandomAttention(0.0, r=0.4)
    assert_same(layer(q, k, v), formula(q, k, v, drawn(layer, N)), [q, k, v])
    assert_same(layer(q, k, v, band(N, 3, 3)), formula(q, k, v, drawn(layer, N) & band(N, 3, 3)), [q, k, v])


def test_a_random_draw_is_a_function_of_the_seed():
    assert drawn(RandomAttention(0.0, r=0.3)).equal(drawn(RandomAttention(0.0, r=0.3)))
    assert not drawn(RandomAttention(0.0, r=0.3)).equal(drawn(RandomAttention(0.0, r=0.3, seed=1)))
    anew = RandomAttention(0.0, r=0.3, constant_masking=False)
    assert not drawn(anew).equal(drawn(anew))
    assert drawn(anew.eval()).equal(drawn(anew))


def test_a_sparse_draw_gives_no_nan():
    assert RandomAttention(0.0)(*qkv()).isfinite().all()


# Fewer keys.


def test_linformer_is_the_packages():
    ours = MultiHeadDispatch(24, HEADS, LinformerAttention(0.0, N, 4), bias=(False, False, False, True)).double()
    enliven(ours)
    theirs = LinformerSelfAttention(24, N, k=4, heads=HEADS).double()
    weights = {f"to_{one}.weight": getattr(ours.in_proj_container, f"{one}_proj").weight for one in "qkv"}
    weights |= {"to_out.weight": ours.proj.weight, "to_out.bias": ours.proj.bias}
    weights |= {"proj_k": ours.attention.E.weight.T, "proj_v": ours.attention.F.weight.T}
    theirs.load_state_dict(weights)
    x = torch.randn(2, N, 24, dtype=torch.float64).requires_grad_()
    assert_same(ours(x), theirs(x), [x])
    shorter = x[:, :9]
    assert_same(ours(shorter), theirs(shorter), [x])


@pytest.mark.parametrize("n", [4, 14])
def test_linformer_refuses_what_it_has_no_weights_for_and_what_is_no_saving(n):
    with pytest.raises(ValueError, match=rf"was given {n} tokens: it takes 5..13"):
        LinformerAttention(0.0, N, 4)(*qkv(n=n))


@pytest.mark.parametrize("convolution", [None, 5])
def test_nystrom_is_the_packages(convolution):
    attention = NystromAttention(0.0, 1, num_landmarks=4, conv_kernel_size=convolution)
    ours = MultiHeadDispatch(24, 1, attention, bias=(False, False, False, True)).double()
    enliven(ours)
    options = {"dim_head": 24, "heads": 1, "num_landmarks": 4, "residual": convolution is not None}
    theirs = LucidrainsNystrom(24, residual_conv_kernel=convolution or 1, **options).double()
    projections = [getattr(ours.in_proj_container, f"{one}_proj").weight for one in "qkv"]
    weights = {"to_qkv.weight": torch.cat(projections), "to_out.0.weight": ours.proj.weight}
    weights["to_out.0.bias"] = ours.proj.bias
    if convolution:
        weights["res_conv.weight"] = ours.attention.skip_connection.weight
    theirs.load_state_dict(weights)
    # One image and one head: that package starts its inverse from sums of the whole batch.
    x = torch.randn(1, 16, 24, dtype=torch.float64).requires_grad_()
    y, expected = ours(x), theirs(x)
    # The package's identity matrix is float32.
    assert_close(y, expected, rtol=1e-6, atol=1e-7)
    assert_close(slopes(y, [x]), slopes(expected, [x]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [5, 7, 8, 11])
@pytest.mark.parametrize("iterative", [True, False])
def test_a_masked_token_is_as_if_it_were_not_there_for_nystrom(kept, iterative):
    layer, (q, k, v) = NystromAttention(0.0, HEADS, 4, use_razavi_pinverse=iterative), qkv()
    generator = torch.Generator().manual_seed(kept)
    rows = torch.stack([torch.randperm(N, generator=generator)[:kept].sort().values for _ in range(2)])
    keep = torch.zeros(2, N, dtype=torch.bool).scatter(1, rows, True)
    index = rows.repeat_interleave(HEADS, 0)[..., None].expand(-1, -1, E)
    expected = layer(*(x.gather(1, index) for x in (q, k, v)))
    added = torch.zeros(2, N).masked_fill(~keep, float("-inf"))
    for mask in (keep, added, added.repeat_interleave(HEADS, 0)[:, None]):
        assert_same(layer(q, k, v, key_padding_mask=mask).gather(1, index), expected, [q, k, v])


def test_nystrom_with_the_inverse_of_torch_is_where_the_iteration_goes():
    q, k, v = qkv()
    exact = NystromAttention(0.0, HEADS, 4, use_razavi_pinverse=False)(q, k, v)
    assert_close(NystromAttention(0.0, HEADS, 4, inv_iterations=40)(q, k, v), exact, rtol=1e-6, atol=1e-8)


def test_nystrom_takes_landmarks_and_a_skip_connection_of_ones_own():
    q, k, v = qkv(n=12)
    first = NystromAttention(0.0, HEADS, 4, landmark_pooling=lambda x: x.unflatten(1, (4, 3)).mean(2))
    assert_close(first(q, k, v), NystromAttention(0.0, HEADS, 4)(q, k, v))
    skipped = NystromAttention(0.0, HEADS, 4, v_skip_connection=nn.Identity())
    assert_close(skipped(q, k, v), first(q, k, v) + v)


def test_a_masked_value_is_zero_to_the_convolution_of_nystrom():
    layer, (q, k, v) = NystromAttention(0.0, HEADS, 4, conv_kernel_size=3).double(), qkv()
    keep = torch.arange(N).expand(2, N) < 8
    changed = torch.where(torch.arange(N)[:, None] < 8, v, 100 * v)
    y, other = (layer(q, k, values, key_padding_mask=keep)[:, :8] for values in (v, changed))
    assert_close(y, other)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.arange(N).expand(2, N) < 4, "an image with 4 unmasked tokens: as many landmarks as tokens are softmax"),
        (torch.ones(2, N - 1, dtype=torch.bool), r"key_padding_mask of shape \(2, 12\) for 6 heads of images of 13"),
        (torch.ones(4, N, dtype=torch.bool), "key_padding_mask of shape"),
    ],
)
def test_a_padding_mask_that_makes_no_sense_is_refused(mask, says):
    with pytest.raises(ValueError, match=says):
        NystromAttention(0.0, HEADS, 4)(*qkv(), key_padding_mask=mask)


@pytest.mark.parametrize("n", [3, 4])
def test_nystrom_does_not_become_softmax(n):
    with pytest.raises(ValueError, match="softmax under another name; take fewer landmarks, or ScaledDotProduct"):
        NystromAttention(0.0, HEADS, 4)(*qkv(n=n))


def test_orthoformer_looks_at_its_landmarks():
    q, k, v = qkv()
    y = OrthoFormerAttention(0.0, num_landmarks=3)(q, k, v)
    for group in range(len(q)):
        unit = q[group].detach() / q[group].detach().norm(dim=1, keepdim=True)
        chosen = [int(q[group].detach().norm(dim=1).argmax())]
        while len(chosen) < 3:
            nearest = [max(abs(float(unit[i] @ unit[j])) for j in chosen) for i in range(N)]
            chosen.append(min(set(range(N)) - set(chosen), key=nearest.__getitem__))
        one = [x[group : group + 1] for x in (q, k, v)]
        marks = one[0].detach()[:, sorted(chosen)]
        assert_same(y[group : group + 1], formula(one[0], marks, formula(marks, *one[1:])), [q, k, v])


def test_orthoformer_does_not_become_softmax():
    for landmarks in (N, N + 1):
        with pytest.raises(ValueError, match="as many landmarks as tokens are more work than softmax"):
            OrthoFormerAttention(0.0, landmarks)(*qkv())


# Without a weight for each pair.


def test_favor_is_the_formula_of_its_features():
    layer, (q, k, v) = FavorAttention(dim_head=E, dim_features=24).double(), qkv(of_values=5)
    features = []
    for x in (q, k):
        x = x / E**0.25
        projected = x @ layer.omega.T
        over = -1 if not features else (-2, -1)
        largest = projected.amax(over, keepdim=True).detach()
        features.append((projected - x.square().sum(-1, keepdim=True) / 2 - largest).exp() + 1e-4)
    weights = torch.einsum("gif,gjf->gij", *features)
    assert_same(layer(q, k, v), weights / weights.sum(-1, keepdim=True) @ v, [q, k, v])


def test_favor_is_softmax_on_average():
    torch.manual_seed(0)
    q, k, v = (x.detach() * 0.5 for x in qkv(images=1))
    y = torch.stack([FavorAttention(dim_head=E, dim_features=256).double()(q, k, v) for _ in range(50)]).mean(0)
    expected = formula(q, k, v)
    assert (y - expected).norm() < 0.02 * expected.norm()


def test_favor_keeps_its_features_in_the_state_and_draws_them_anew_when_asked():
    layer, tokens = FavorAttention(dim_head=E).double(), qkv()
    assert list(layer.state_dict()) == ["omega"]
    assert layer.dim_features == 32
    before = layer(*tokens)
    assert torch.equal(before, layer(*tokens))
    layer.redraw(torch.Generator().manual_seed(1))
    assert not torch.equal(before, layer(*tokens))


def test_fourier_is_torchs_transform():
    q, k, v = qkv()
    assert_same(FourierMix(0.0)(q, k, v), torch.fft.fft2(q).real, [q])


def test_lambda_is_the_sum_over_tokens_written_out():
    layer, (q, k, v) = LambdaLayer(0.0, N, E).double(), qkv(of_values=5)
    rows = []
    keys = k.exp() / k.exp().sum(1, keepdim=True)
    content = sum(keys[:, m, :, None] * v[:, m, None] for m in range(N))
    for n in range(N):
        position = sum(layer.rel_pos_emb[m - n + N - 1][:, None] * v[:, m, None] for m in range(N))
        rows.append(((content + position).mT @ q[:, n, :, None])[..., 0])
    leaves = [q, k, v, layer.rel_pos_emb]
    assert_same(layer(q, k, v), torch.stack(rows, dim=1), leaves)


def test_places_of_a_shorter_sequence_are_those_at_its_beginning():
    layer, (q, k, v) = LambdaLayer(0.0, N, E).double(), qkv(n=4)
    shorter = LambdaLayer(0.0, 4, E).double()
    with torch.no_grad():
        shorter.rel_pos_emb.copy_(layer.rel_pos_emb[N - 4 : N + 3])
    assert_close(layer(q, k, v), shorter(q, k, v))
    assert LambdaLayer(0.0, N, E)(torch.ones(2, 1, E)).shape == (2, 1, E)
    with pytest.raises(ValueError, match="was given 14 tokens"):
        layer(*qkv(n=14))


# On a grid.


@pytest.mark.parametrize(("count", "grid"), [(16, None), (12, (3, 4))])
def test_pooling_is_torchs_average_minus_the_token(count, grid):
    x = torch.randn(2, count, E, dtype=torch.float64).requires_grad_()
    maps = x.mT.unflatten(2, grid or (4, 4))
    expected = (nn.AvgPool2d(3, 1, 1, count_include_pad=False)(maps) - maps).flatten(2).mT
    assert_same(Pooling(grid=grid)(x), expected, [x])


def test_visual_is_the_convolutions_as_sums_over_patches():
    layer, side = Visual(E).double(), 5
    enliven(layer)
    x = torch.randn(1, side * side, E, dtype=torch.float64).requires_grad_()

    def around(conv, u, gap):
        """A depthwise convolution, place by place."""
        middle = conv.kernel_size[0] // 2
        rows = []
        for here in range(side * side):
            total = conv.bias
            for there in range(side * side):
                down, right = there // side - here // side, there % side - here % side
                if down % gap == right % gap == 0 and max(abs(down), abs(right)) <= middle * gap:
                    total = total + conv.weight[:, 0, middle + down // gap, middle + right // gap] * u[:, there]
            rows.append(total)
        return torch.stack(rows, dim=1)

    first, _, kernel, last = layer.block
    u = nn.functional.gelu(x @ first.weight[:, :, 0, 0].T + first.bias)
    seen = (
        around(kernel.conv_spatial, around(kernel.conv0, u, 1), 3) @ kernel.conv1.weight[:, :, 0, 0].T
        + kernel.conv1.bias
    )
    expected = x + (u * seen) @ last.weight[:, :, 0, 0].T + last.bias
    assert_same(layer(x), expected, [x, *layer.parameters()])


@pytest.mark.parametrize("layer", [Pooling(), Visual(E), Pooling(grid=(2, 3))], ids=["pooling", "visual", "grid"])
def test_tokens_that_fill_no_grid_are_refused(layer):
    with pytest.raises(ValueError, match=r"was given 17 tokens: they must fill the grid.*take cls off before"):
        layer(torch.ones(1, 17, E))


# Compositional.


def composed(layer, x, memory, keep=None):
    """The formula search by search, with all terms of every score."""
    inner, searches, values = layer.in_proj_container, layer.num_heads, layer.num_rules
    q = inner.q_proj(x).chunk(searches, -1)
    k = inner.k_proj(memory).chunk(searches, -1)
    v = inner.v_proj(memory).chunk(values, -1)
    second = layer.value_q(x).chunk(searches, -1) if not layer.q_compose else None
    outputs = []
    for s in range(searches):
        found = [formula(q[s], k[s], value, keep) for value in v]
        own = layer.value_q(q[s] / layer.dim_head**0.5) if layer.q_compose else second[s]
        if layer.qk_rule:
            scores = [(own * layer.value_k(one)).sum(-1) / layer.dim_selection**0.5 for one in found]
        else:
            scores = [layer.score_network(torch.cat([one, own], -1))[..., 0] for one in found]
        shares = torch.stack(scores).softmax(0)
        outputs.append(sum(share[..., None] * one for share, one in zip(shares, found, strict=True)))
    return layer.out_proj(torch.cat(outputs, -1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_rule": True, "num_rules": 3},
        {"qk_rule": True, "q_compose": True, "dim_selection": 5},
        {"nonlinear": True, "dim_attn": 8, "use_separate_proj_weight": True},
        {"nonlinear": True, "q_compose": True},
        {"bias": False, "use_separate_proj_weight": True, "dim_value": 36},
    ],
    ids=str,
)
def test_compositional_is_the_formula_search_by_search(options):
    layer = CompositionalAttention(24, 4, **options).double()
    enliven(layer)
    x, memory = (torch.randn(2, n, 24, dtype=torch.float64).requires_grad_() for n in (N, 7))
    assert_same(layer(x), composed(layer, x, x), [x])
    assert_same(layer(x, memory, memory), composed(layer, x, memory), [x, memory])
    keep = torch.rand(2, N, N, generator=torch.Generator().manual_seed(0)) < 0.5
    keep |= torch.eye(N, dtype=torch.bool)
    assert_same(layer(x, att_mask=keep), composed(layer, x, x, keep), [x])
    layer.causal = True
    assert_same(layer(x, att_mask=keep), composed(layer, x, x, keep.tril()), [x])
    assert_same(layer(x), composed(layer, x, x, torch.ones(N, N, dtype=torch.bool).tril()), [x])


def test_a_token_that_may_see_nothing_retrieves_nothing():
    layer, x = CompositionalAttention(24, 4).double(), torch.randn(2, N, 24, dtype=torch.float64)
    keep = torch.ones(N, N, dtype=torch.bool)
    keep[3] = False
    y = layer(x, att_mask=keep)
    assert_close(y[:, 3], layer.out_proj.bias.expand(2, -1))
    assert_close(y[:, 4], layer(x)[:, 4])


def test_queries_keys_and_values_share_one_projection_unless_told_otherwise():
    count = {
        separate: sum(
            one.numel() for one in CompositionalAttention(24, 4, use_separate_proj_weight=separate).parameters()
        )
        for separate in (False, True)
    }
    assert count == {False: 3 * 24**2 + 3 * 24 + 2 * 6 + 1, True: 5 * 24**2 + 5 * 24 + 2 * 6 + 1}


# Around an attention.


@pytest.mark.parametrize("separate", [True, False])
def test_the_dispatch_around_softmax_is_torchs_multi_head_attention(separate):
    ours = MultiHeadDispatch(24, HEADS, ScaledDotProduct(), use_separate_proj_weight=separate).double()
    enliven(ours)
    inner = ours.in_proj_container
    theirs = nn.MultiheadAttention(24, HEADS, batch_first=True).double()
    projections = (inner.q_proj, inner.k_proj, inner.v_proj)
    weights = {"in_proj_weight": torch.cat([one.weight for one in projections])}
    weights |= {"in_proj_bias": torch.cat([one.bias for one in projections])}
    weights |= {"out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias}
    theirs.load_state_dict(weights)
    x, memory = (torch.randn(2, n, 24, dtype=torch.float64).requires_grad_() for n in (N, 7))
    assert_same(ours(x), theirs(x, x, x)[0], [x])
    assert_same(ours(x, memory, memory), theirs(x, memory, memory)[0], [x, memory])
    keep = band(N, 3, 2)
    assert_same(ours(x, att_mask=keep), theirs(x, x, x, attn_mask=~keep)[0], [x])
    assert (inner.q_proj.weight is inner.k_proj.weight) is not separate


def test_the_dispatch_gives_one_image_to_all_and_knows_other_widths():
    layer = MultiHeadDispatch(24, HEADS, ScaledDotProduct(), dim_key=12, dim_value=9, bias=False)
    x, memory = torch.randn(2, N, 24), torch.randn(1, 7, 24)
    assert_close(layer(x, memory, memory), layer(x, memory.expand(2, -1, -1), memory.expand(2, -1, -1)))
    assert layer.proj.weight.shape == (24, 9)
    assert layer.proj.bias is None


@every_attention
def test_every_attention_can_be_dispatched_to(name):
    config = {"name": name, "dropout": 0.0, "seq_len": N, "num_landmarks": 4, "attention_query_mask": TOKENS}
    layer = build_multi_head_attention(
        {"dim_model": 24, "num_heads": HEADS, "attention": {**config, "grid": (1, N)}, "residual_dropout": None}
    )
    x = torch.randn(2, N, 24)
    assert layer(x).shape == x.shape
    assert type(layer.attention) is ATTENTION_REGISTRY[name]


def test_a_grid_gets_whole_tokens_and_fourier_heads_without_projections():
    x = torch.randn(2, 16, 24)
    assert_close(MultiHeadDispatch(24, 3, Pooling())(x), Pooling()(x))
    layer = MultiHeadDispatch(24, 3, FourierMix(0.0))
    heads = torch.fft.fft2(x.unflatten(2, (3, 8)).transpose(1, 2)).real
    assert_close(layer(x), layer.proj(heads.transpose(1, 2).flatten(2)), rtol=1e-4, atol=1e-4)
    assert {name.split(".")[0] for name in layer.state_dict()} == {"proj"}


# What is refused.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ScaledDotProduct(dropout=1.5), r"dropout must be in \[0, 1\)"),
        (lambda: LocalAttention(window_size=4), "must be odd"),
        (lambda: LocalAttention(force_sparsity=True), "no sparse kernel to be forced; leave it out"),
        (lambda: GlobalAttention(0.0, TOKENS[:, 0]), r"must be Boolean \(N, 1\)"),
        (lambda: GlobalAttention(0.0, TOKENS, force_sparsity=True), "no sparse kernel"),
        (lambda: RandomAttention(0.0, r=0.0), "r must be above 0"),
        (lambda: RandomAttention(0.0, force_sparsity=True), "no sparse kernel"),
        (lambda: LinformerAttention(0.0, 12, 12), "k must be 1..11; more would be more work than softmax"),
        (lambda: NystromAttention(0.0, 2, causal=True), "take ScaledDotProduct"),
        (lambda: NystromAttention(0.0, 2, pinverse_original_init=True), "depend on its batch mates"),
        (lambda: NystromAttention(0.0, 2, num_landmarks=0), "must be at least 1"),
        (lambda: NystromAttention(0.0, 2, conv_kernel_size=4), "must be odd"),
        (lambda: OrthoFormerAttention(0.0, 0), "must be at least 1"),
        (lambda: OrthoFormerAttention(0.0, subsample_fraction=0.5), "drawn at random, in evaluation too"),
        (lambda: OrthoFormerAttention(0.0, landmark_selection=LandmarkSelection.KMeans), "'kmeans'.: the paper's"),
        (lambda: OrthoFormerAttention(0.0, landmark_selection="random"), "leave it out"),
        (lambda: CompositionalAttention(24, 5), "must divide them"),
        (lambda: CompositionalAttention(24, 4, num_rules=5), "must divide them"),
        (lambda: CompositionalAttention(24, 4, dim_key=12), "dim_key must be dim_model"),
        (lambda: CompositionalAttention(24, 4, dim_attn=12, dim_value=24), "and dim_value dim_attn"),
        (lambda: CompositionalAttention(24, 4, dim_attn=12), "set use_separate_proj_weight=True"),
        (lambda: CompositionalAttention(24, 4, qk_rule=True, nonlinear=True), "two rules; choose one"),
        (lambda: FavorAttention(dim_head=E, causal=True), "is not offered"),
        (lambda: FavorAttention(dim_head=E, iter_before_redraw=5), r"call redraw\(\) between training steps"),
        (
            lambda: FavorAttention(dim_head=E, feature_map_type=FeatureMapType.SMReg),
            "its weights are biased; leave it out",
        ),
        (lambda: FavorAttention(dim_head=E, feature_map_type="sm_hyp"), "its weights are biased; leave it out"),
        (lambda: FavorAttention(dim_head=E, normalize_inputs=True), "leave it out"),
        (lambda: FavorAttention(dim_features=8), "needs dim_head"),
        (lambda: FavorAttention(dim_head=E)(torch.ones(1, 3, 4)), "was given heads of width 4"),
        (lambda: Pooling(4), "must be odd"),
        (lambda: Pooling(stride=2), "stride=2"),
        (lambda: Pooling(padding=0), "padding=0.: must be 1"),
        (lambda: MultiHeadDispatch(24, 5, ScaledDotProduct()), "must divide both"),
        (lambda: MultiHeadDispatch(24, 3, ScaledDotProduct(), use_rotary_embeddings=True), "rope=True"),
        (
            lambda: MultiHeadDispatch(24, 3, ScaledDotProduct(), dim_value=12, use_separate_proj_weight=False),
            "needs one width",
        ),
        (lambda: build_attention({"name": "reformer"}), "there is no attention 'reformer': known are scaled_dot"),
        (lambda: build_attention({"name": "linformer", "dropot": 0.1}), "'dropot' is an option of none"),
        (lambda: build_attention({"name": "linformer", "dropout": 0.1}), "'linformer' needs seq_len"),
        (lambda: build_attention({"name": "fourier_mix", "dropout": 0.1, "causal": True}), "no causal form"),
        (lambda: ScaledDotProduct()(torch.ones(N, E)), "q must be"),
        (lambda: ScaledDotProduct()(torch.ones(2, N, E), torch.ones(2, N, 4)), "do not fit"),
        (lambda: LocalAttention()(torch.ones(2, N, E), torch.ones(2, 7, E)), "as many keys as queries"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_the_weights_are_xformers():
    names = {
        "linformer": ["E.weight", "F.weight"],
        "nystrom": ["skip_connection.weight"],
        "lambda": ["rel_pos_emb"],
        "visual": [
            f"block.{part}.{kind}"
            for part in ("0", "2.conv0", "2.conv_spatial", "2.conv1", "3")
            for kind in ("weight", "bias")
        ],
    }
    projections = [f"in_proj_container.{one}_proj.{kind}" for one in "qkv" for kind in ("weight", "bias")]
    others = [f"{one}.{kind}" for one in ("out_proj", "value_q", "score_network") for kind in ("weight", "bias")]
    names["compositional"] = projections + others
    for name in ATTENTION_REGISTRY:
        expected = names.get(name, ["omega"] if name == "favor" else [])
        assert list(made(name).state_dict()) == expected


def test_every_name_is_there():
    for name in xformers.__all__:
        assert getattr(xformers, name) is not None
