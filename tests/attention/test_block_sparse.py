"""Block-sparse attention against BigBird of transformers and torch's masked attention; layouts against their rules."""

import io

import numpy as np
import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from tests.peers import transformers
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.block_sparse import BlockSparse, block_sparse_attention
from saccade.attention.initial import seeded
from saccade.attention.layouts import layout_of, parse_layout

DIM, HEADS = 24, 3
SDPA = torch.nn.functional.scaled_dot_product_attention


def rule(family, r, c, n):
    """Whether block r sees block c by the family's default options, without what is drawn."""
    if family == "fixed":
        start = (n // 4) * 4
        ragged = c == min(start + 3, n - 1) and n % 4 != 0
        return r // 4 == c // 4 or (c % 4 == 3 and c < start) or ragged
    if family == "variable":
        return r // 4 == c // 4 or c == 0
    return abs(r - c) <= 1 or r == 0 or c == 0


def layer_of(options, tokens, seed=0, layer=0):
    made = lively(f"block_sparse({options})", DIM, HEADS, tokens)
    made.layer = layer
    if made.family.random:
        made.layout.copy_(made.family.drawn(made.count, made.variants, torch.Generator().manual_seed(seed)))
    return made


def masks(layer, ids):
    """The mask of each head of each image, pair by pair from the layout and the blocks that the ids lie in."""
    block = {id_: row for row, own in enumerate(layer.ids.tolist()) for id_ in own if id_ >= 0}
    heads = layer.layout.tolist()
    seen = [[[[head[block[i]][block[j]] for j in own] for i in own] for head in heads] for own in ids.tolist()]
    return torch.nn.functional.pad(torch.tensor(seen), (layer.tokens.prefix, 0, layer.tokens.prefix, 0), value=True)


@pytest.mark.parametrize("family", ["fixed", "variable", "bigbird", "bslongformer"])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 13, 16])
def test_layouts_follow_their_rules(family, count):
    layout = parse_layout(family).certain(count)
    assert layout.tolist() == [[rule(family, r, c, count) for c in range(count)] for r in range(count)]


@pytest.mark.parametrize(
    ("count", "densities"),
    [(13, (0.52, 0.34, 0.40, 0.35)), (8, (0.63, 0.56, 0.59, 0.53)), (16, (0.44, 0.30, 0.33, 0.29)),
     (4, (1.0, 1.0, 0.91, 0.88))],
)  # fmt: skip
def test_layouts_are_as_dense_as_published(count, densities):
    for family, density in zip(("fixed", "variable", "bigbird", "bslongformer"), densities, strict=True):
        layout = parse_layout(family)
        # 0.625 and 0.875 lie on the edge of rounding.
        assert layout.density(count) == pytest.approx(density, abs=0.0051)
        drawn = [layout.drawn(count, 1, torch.Generator().manual_seed(seed)).double().mean() for seed in range(200)]
        assert sum(drawn) / 200 == pytest.approx(layout.density(count), abs=0.005)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("fixed(local=4,global=2)", ["111111", "111111", "111111", "111111", "001111", "001111"]),
        ("fixed(local=3,global=1,horizontal=True)", ["111001", "111001", "111111", "001111", "001111", "111111"]),
        ("variable(windows=(1,2),global=(2,-1))", ["101001", "011001", "011001", "001111", "001111", "001001"]),
        ("variable(windows=2,global=5,horizontal=True)", ["110001", "110001", "001101", "001101", "000011", "111111"]),
        ("bigbird(random=0,slide=1,global=2)", ["111111", "111111", "111000", "110100", "110010", "110001"]),
        ("bslongformer(slide=1,global=(0,-1))", ["111111", "110001", "101001", "100101", "100011", "111111"]),
        ("bslongformer(slide=5,global=[9])", ["111000", "111100", "111110", "011111", "001111", "000111"]),
    ],
)
def test_options_of_layouts(text, rows):
    assert parse_layout(text).certain(6).int().tolist() == [[int(sign) for sign in row] for row in rows]


@pytest.mark.parametrize(
    "text", ["bigbird(random=3)", "variable(random=2)", "fixed", "bslongformer", "bigbird(slide=7)"]
)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 13, 40])
def test_every_block_sees_itself_and_no_row_is_longer_than_declared(text, count):
    layout = parse_layout(text)
    drawn = layout.drawn(count, 6, torch.Generator().manual_seed(0))
    assert drawn.diagonal(dim1=1, dim2=2).all()
    others = [row for row in range(count) if row not in layout.full_rows(count, 6)]
    assert drawn[:, layout.full_rows(count, 6)].all()
    assert all(int(drawn[:, row].sum(1).max()) <= layout.longest(count, 6) for row in others)


def test_drawn_blocks_are_distinct_and_may_be_seen_already():
    layout = parse_layout("bigbird(random=3,slide=1,global=1)")
    more = layout.drawn(30, 40, torch.Generator().manual_seed(0))[:, 1:].sum(2) - 2
    assert set(more.flatten().tolist()) == {1, 2, 3}


def test_it_is_the_bigbird_of_transformers():
    module = transformers.models.big_bird.modeling_big_bird
    block, count, heads, width = 16, 12, 2, 16
    config = transformers.BigBirdConfig(
        hidden_size=width, num_attention_heads=heads, block_size=block, num_random_blocks=2, use_bias=True,
        max_position_embeddings=1000,
    )  # fmt: skip
    theirs = module.BigBirdBlockSparseAttention(config, seed=3).double().train()
    x = images(2, block * count, width).requires_grad_()
    everything = torch.ones(2, block * count, dtype=torch.float64)
    blocked, band, rows, columns = module.BigBirdModel.create_masks_for_block_sparse_attn(everything, block)
    expected, _ = theirs(x, band, rows, columns, blocked, blocked)
    # The same draw, as they make it.
    np.random.seed(3)
    plan = theirs._get_rand_attn_plan(block * count, block, 2)
    drawn = np.stack(
        theirs._bigbird_block_rand_mask_with_head(block * count, block * count, block, block, heads, *plan)
    )
    layout = parse_layout("bslongformer(slide=3,global=(0,-1))").certain(count).repeat(heads, 1, 1)
    inner = layout[:, 1:-1].scatter(2, torch.from_numpy(drawn).long(), True)
    assert inner.sum() == layout[:, 1:-1].sum() + 2 * heads * (count - 2)
    layout[:, 1:-1] = inner
    q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in (theirs.query(x), theirs.key(x), theirs.value(x)))
    ids = torch.arange(block * count).view(1, count, block)
    order = torch.tensor([0, count - 1, *range(1, count - 1)])
    y = block_sparse_attention(q, k, v, 0, ids, layout, order, 2, 7).transpose(1, 2).flatten(2)
    assert_close(y, expected)
    leaves = [x, theirs.query.weight, theirs.key.weight, theirs.value.weight]
    assert_close(slopes(y, leaves), slopes(expected, leaves))


@pytest.mark.parametrize(
    ("options", "grid", "prefix"),
    [
        ('layout="bigbird"', (14, 14), 1),
        ('layout="bigbird(random=2)",order="raster"', (14, 14), 0),
        ('layout="fixed"', (14, 14), 2),
        ('layout="fixed(horizontal=True)"', (16, 16), 1),
        ('layout="variable(random=1)"', (12, 15), 1),
        ('layout="bslongformer",block=32', (20, 20), 1),
        ('layout="bslongformer",block=64', (28, 28), 1),
        ('layout="bigbird",per_head=True', (14, 14), 1),
        ('layout="fixed",per_head=True', (14, 14), 1),
        ('layout="fixed(horizontal=True)",per_head=True', (9, 9), 1),
        ('layout="bslongformer"', (7, 7), 1),
    ],
)
def test_it_is_torchs_attention_under_the_mask_of_its_layout(options, grid, prefix):
    tokens = Tokens(grid, prefix)
    layer = layer_of(options, tokens)
    # Few blocks, or heads whose full rows differ, hold more scores than there are pairs.
    assert layer.takes_blocks(tokens.patches) == (grid not in ((7, 7), (9, 9)))
    x = images(2, tokens.count, DIM).requires_grad_()
    mask = masks(layer, torch.arange(tokens.patches)[None])
    expected = layer.merge(SDPA(*layer.split(x), attn_mask=mask))
    y = layer(x)
    assert_close(y, expected)
    assert_close(layer.reference(x), expected)
    leaves = [x, layer.qkv.weight, layer.proj.weight]
    assert_close(slopes(y, leaves), slopes(expected, leaves))
    assert torch.equal(layer.mask(None)[0], mask[0].any(0))


@pytest.mark.parametrize(
    "options", ['layout="bigbird"', 'layout="fixed",per_head=True', 'layout="bigbird",per_head=True']
)
@pytest.mark.parametrize("count", [40, 170])
def test_visible_patches_keep_their_blocks(options, count):
    tokens = Tokens((14, 14), 1)
    layer = layer_of(options, tokens)
    assert layer.takes_blocks(count) == (count == 170)
    x, ids = images(2, 1 + count, DIM).requires_grad_(), visible(2, tokens, count)
    # A whole block is hidden, that sees all or that does not.
    for image, hidden in enumerate((0, 5)):
        others = [id_ for id_ in range(196) if layer.block_of[id_] != hidden]
        ids[image] = torch.tensor(others[:count])
    expected = layer.merge(SDPA(*layer.split(x), attn_mask=masks(layer, ids)))
    y = layer(x, ids)
    assert_close(y, expected)
    assert_close(slopes(y, [x, layer.qkv.weight]), slopes(expected, [x, layer.qkv.weight]))


def test_blocks_that_see_nothing_visible_leave_the_gradients_finite():
    """In bf16, where a row of minus infinities is no zero but NaN."""
    x = images(2 * 3, 32, 4).bfloat16().unflatten(0, (2, 3)).requires_grad_()
    ids = torch.full((1, 4, 16), -1)
    ids[0, :2] = torch.arange(32).view(2, 16)
    layout = parse_layout("bslongformer(slide=1,global=())").certain(4)[None]
    y = block_sparse_attention(x, x, x, 0, ids, layout, torch.arange(4), 0, 1)
    assert y.isfinite().all()
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_heads_have_layouts_of_their_own_where_asked():
    tokens = Tokens((14, 14), 1)
    layer = layer_of('layout="fixed",per_head=True', tokens)
    # The block of a window that all see: the last, the one before, and so on.
    assert [[int(head[0, 4:8].nonzero()) for head in layer.layout]] == [[3, 2, 1]]
    one, own = (layer_of(f"per_head={per_head}", tokens).layout for per_head in (False, True))
    assert one.shape == (1, 13, 13)
    assert own.shape == (HEADS, 13, 13)
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize(("block", "height", "width"), [(16, 4, 4), (32, 4, 8), (64, 8, 8), (128, 8, 16)])
def test_a_block_is_a_tile_of_the_grid(block, height, width):
    tokens = Tokens((32, 32))
    layer = build(f'block_sparse(layout="bslongformer",block={block})', DIM, HEADS, tokens)
    rows, columns = layer.ids // 32, layer.ids % 32
    assert (rows.amax(1) - rows.amin(1) == height - 1).all()
    assert (columns.amax(1) - columns.amin(1) == width - 1).all()
    assert layer.ids.flatten().sort().values.equal(torch.arange(1024))
    assert layer.ids[1, 0] == width


def test_in_raster_order_a_block_is_a_run_and_the_last_is_short():
    layer = build('block_sparse(order="raster")', DIM, HEADS, Tokens((14, 14), 1))
    assert layer.ids.flatten()[:196].equal(torch.arange(196))
    assert layer.ids[-1].tolist() == [192, 193, 194, 195, *[-1] * 12]
    assert build("block_sparse", DIM, HEADS, Tokens((14, 14), 1)).ids[0].tolist() == [
        14 * row + column for row in range(4) for column in range(4)
    ]


def test_flops_are_those_of_the_gathered_blocks():
    layer = build("block_sparse", DIM, HEADS, Tokens((14, 14), 1))
    # 12 blocks of 16 see 5 blocks and cls; cls and the first block see all.
    assert layer.mix_flops(196, 197) == 4 * DIM * (12 * 16 * (5 * 16 + 1) + 17 * 197)
    assert layer.mix_flops(49, 50) == 4 * DIM * 50 * 50
    assert layer.mix_flops(196, 197) < build("softmax", DIM, HEADS, Tokens((14, 14), 1)).mix_flops(196, 197) / 2


def test_the_layout_is_saved_and_loaded_and_what_follows_from_the_options_is_not():
    tokens = Tokens((14, 14), 1)
    layer, other = (build("block_sparse", DIM, HEADS, tokens) for _ in range(2))
    layer.reset_parameters(seeded(1))
    other.reset_parameters(seeded(2))
    assert not torch.equal(layer.layout, other.layout)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(layer.mask(None), other.mask(None))
    x = images(1, 197, DIM).float()
    assert torch.equal(layer(x), other(x))
    assert set(layer.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias", "layout"}


def test_another_grid_has_another_draw_which_depends_on_the_layer_alone():
    tokens, wider = Tokens((14, 14), 1), Tokens((16, 18), 1)
    made = [layer_of("per_head=True", tokens, seed, layer) for seed, layer in ((1, 0), (2, 0), (1, 1))]
    layouts = [layer.regrid(wider).layout for layer in made]
    assert layouts[0].shape == (HEADS, 18, 18)
    assert torch.equal(layouts[0], layouts[1])
    assert not torch.equal(layouts[0], layouts[2])
    assert torch.equal(made[0].regrid(tokens).layout, made[0].layout)
    x = images(1, 289, DIM)
    assert_close(made[0].regrid(wider)(x), made[0].regrid(wider).reference(x))


def test_the_layout_of_a_mask_holds_every_allowed_pair():
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[0, 0, 5] = mask[0, 4, 1] = mask[1, 3, 3] = True
    assert layout_of(mask, 2).int().tolist() == [[[0, 0, 1], [0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]]


def test_parameters_are_four_projections():
    layer = build("block_sparse", DIM, HEADS, Tokens((14, 14), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


@pytest.mark.parametrize(
    ("options", "grid", "says"),
    [
        ('layout="fixed",block=64', (14, 14), "on 196 patches, 4 blocks: 100% of the pairs of blocks"),
        ('layout="bigbird"', (7, 7), "on 49 patches, 4 blocks: 91% of the pairs of blocks"),
        ('layout="bslongformer"', (4, 5), "more than 90 % is softmax"),
    ],
)
def test_dense_layouts_are_refused(options, grid, says):
    with pytest.raises(ValueError, match=says):
        build(f"block_sparse({options})", DIM, HEADS, Tokens(grid, 1))
    build('block_sparse(layout="bslongformer",block=64)', DIM, HEADS, Tokens((14, 14), 1))


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("bigbyrd", "there is no layout 'bigbyrd': known are bigbird, bslongformer, fixed, variable"),
        ("bigbird(windows=(4,))", "bigbird has no option 'windows': its options are random, slide, global"),
        ("bigbird(slide=2)", "slide must be odd"),
        ("bigbird(slide=0)", "slide must be a whole number of at least 1"),
        ("bigbird(random=-1)", "random must be a whole number of at least 0"),
        ("bigbird(global=(0,))", "global must be a whole number of at least 1"),
        ("fixed(local=4,global=3)", "global must divide local"),
        ("fixed(horizontal=1)", "horizontal must be True or False"),
        ("variable(windows=())", "windows must be lengths of at least 1"),
        ("variable(windows=(2,0))", "windows must be lengths of at least 1"),
        ("bslongformer(global=(0.5,))", "global must be numbers of blocks"),
        ("bigbird(", "is no attention"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(layout, says):
    with pytest.raises(ValueError) as refused:
        BlockSparse(DIM, HEADS, Tokens((14, 14)), layout=layout)
    assert says in str(refused.value)


@pytest.mark.parametrize("block", [0, 8, 48, 256])
def test_blocks_have_one_of_four_sizes(block):
    with pytest.raises(ValueError, match=r"block must be 16, 32, 64 or 128"):
        BlockSparse(DIM, HEADS, Tokens((14, 14)), block=block)


@pytest.mark.parametrize("layout", ["bslongformer", "bigbird(random=0)", "variable", "fixed(local=4,global=4)"])
def test_heads_that_cannot_differ_are_refused(layout):
    with pytest.raises(ValueError, match="this layout is the same for every head"):
        BlockSparse(DIM, HEADS, Tokens((14, 14)), layout=layout, per_head=True)


def test_the_order_is_tiles_or_raster():
    with pytest.raises(ValueError, match="order"):
        build('block_sparse(order="hilbert")', DIM, HEADS, Tokens((14, 14)))


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"there is no block 99, they are 0\.\.12"):
        build('block_sparse(layout="bslongformer(global=(99,))")', 16, 2, Tokens((14, 14), 1))
    build('block_sparse(layout="bslongformer(global=(12,))")', 16, 2, Tokens((14, 14), 1))
