"""Pattern attention: rules against distances, draws against torch.multinomial, attention against torch's."""

import io

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build, predicates
from saccade.attention.initial import seeded
from saccade.attention.listed import most
from saccade.attention.pattern import Pattern, Rule, parse_rules

DIM, HEADS = 24, 3
SDPA = torch.nn.functional.scaled_dot_product_attention
ORIGINAL = "axial|local(2)|random(0.01)|gaussian(5,0.03)"


def layer_of(of, tokens, seed=0, layer=0, **options):
    made = Pattern(DIM, HEADS, tokens, layer=layer, of=of, **options).double()
    made.reset_parameters(seeded(seed))
    return made


def rows_and_columns(grid):
    return [(y, x) for y in range(grid[0]) for x in range(grid[1])]


RULES = {
    "axial": lambda dy, dx, *_: dy == 0 or dx == 0,
    "local(2)": lambda dy, dx, *_: (dy**2 + dx**2) ** 0.5 < 2,
    "local(2.3)": lambda dy, dx, *_: (dy**2 + dx**2) ** 0.5 < 2.3,
    "square(2)": lambda dy, dx, *_: max(abs(dy), abs(dx)) <= 2,
    "window(3)": lambda dy, dx, a, b: a[0] // 3 == b[0] // 3 and a[1] // 3 == b[1] // 3,
    "window(3, 1)": lambda dy, dx, a, b: (a[0] + 2) // 3 == (b[0] + 2) // 3 and (a[1] + 2) // 3 == (b[1] + 2) // 3,
    "dilated(2)": lambda dy, dx, *_: dy % 2 == 0 and dx % 2 == 0,
}


@pytest.mark.parametrize("of", RULES)
@pytest.mark.parametrize("grid", [(7, 7), (5, 8)])
def test_rules_are_what_they_say(of, grid):
    places = rows_and_columns(grid)
    expected = [[RULES[of](a[0] - b[0], a[1] - b[1], a, b) for b in places] for a in places]
    assert layer_of(of, Tokens(grid)).mask(None)[0].tolist() == expected


def test_axial_and_local_are_the_distances_of_xformers():
    places = torch.tensor(rows_and_columns((14, 14))).float()
    # A distance of p = 0 counts the coordinates that differ.
    expected = (torch.cdist(places, places, p=0) < 2) | (torch.cdist(places, places, p=2) < 2)
    assert torch.equal(layer_of("axial|local(2)", Tokens((14, 14))).mask(None)[0], expected)


@pytest.mark.parametrize("shift", [1, 3, 6])
def test_shifted_windows_are_swins_roll(shift):
    """Windows of the rolled grid, without those parts that come from the other side."""
    window = torch.arange(14) // 7
    rolled = window.roll(shift)
    far = torch.arange(14)
    expected = (rolled[:, None] == rolled[None, :]) & ((far[:, None] < shift) == (far[None, :] < shift))
    y, x = torch.zeros(14, dtype=torch.long), torch.arange(14)
    assert torch.equal(predicates.same_window(y, x, 7, shift), expected)


def test_the_sparsity_is_that_of_the_notebook():
    """0.8062 at 14 x 14 with cls, of one draw (xFormers, docs/source/vision_transformers.ipynb)."""
    tokens = Tokens((14, 14), 1)
    sparsities = [1 - layer_of(ORIGINAL, tokens, seed).mask(None).float().mean().item() for seed in range(5)]
    assert all(sparsity == pytest.approx(0.8062, abs=0.002) for sparsity in sparsities)
    assert len(set(sparsities)) > 1


def test_the_default_is_the_original():
    assert build("pattern", DIM, HEADS, Tokens((14, 14), 1)).of == ORIGINAL


def test_gaussian_pairs_are_drawn_as_by_torchs_multinomial():
    tokens = Tokens((10, 12))
    y, x = torch.tensor(rows_and_columns((10, 12))).double().T
    squared = (y[:, None] - y).square() + (x[:, None] - x).square()
    weights = (-squared / (2 * 3.0**2)).exp()
    torch.manual_seed(0)

    def multinomial():
        chosen = torch.multinomial(weights.flatten(), int(14400 * 0.05))
        return torch.zeros(14400, dtype=torch.bool).scatter(0, chosen, True).view(120, 120)

    def ours(seed):
        [rule] = parse_rules("gaussian(3,0.05)")
        assert rule == Rule("gaussian", (3, 0.05))
        return layer_of("gaussian(3,0.05)", tokens, seed).pairs(seeded(seed))

    bins = (squared.sqrt() / 1.5).long()
    for drawn, least in ((ours(0), 720), (multinomial(), 720)):
        assert drawn.sum() >= least
    counts = torch.zeros(2, 12, dtype=torch.double)
    off = ~torch.eye(120, dtype=torch.bool)
    for seed in range(20):
        for kind, drawn in enumerate((ours(seed), multinomial())):
            counts[kind] += torch.bincount(bins[drawn & off], minlength=12).double()[:12]
    assert ((counts[0] - counts[1]).abs() < 5 * (counts.sum(0) + 1).sqrt()).all()
    assert counts[1, 0] > counts[1, 5] > 0


def test_so_many_gaussian_pairs_are_drawn_as_its_share_says():
    pairs = layer_of("gaussian(5,0.03)", Tokens((14, 14))).pairs(seeded(3))
    # 1,152 in the notebook; the diagonal is added.
    among = pairs & ~torch.eye(196, dtype=torch.bool)
    assert 1152 - 60 < among.sum() <= 1152
    assert pairs.diagonal().all()


@pytest.mark.parametrize("of", ["gaussian(2,0.03)", "gaussian(5,0.1)|random(0.02)", "gaussian(0.5,0.1)", "random(0.3)"])
def test_the_lists_hold_every_draw(of):
    tokens = Tokens((9, 11))
    lengths = set()
    for seed in range(20):
        layer = layer_of(of, tokens, seed)
        fullest = int(layer.pairs(seeded(seed)).sum(1).max())
        assert fullest <= layer.longest()
        assert torch.equal(layer.mask(None)[0], layer.pairs(seeded(seed)))
        lengths.add(layer.keys.shape)
    assert lengths == {(99, layer.longest())}


def test_the_fullest_row_of_gaussian_pairs_is_known_on_average():
    tokens, means = Tokens((9, 11)), torch.zeros(99, dtype=torch.double)
    for seed in range(100):
        means += layer_of("gaussian(2,0.1)", tokens, seed).pairs(seeded(seed)).sum(1) / 100
    assert int(means.argmax()) in {4 * 11 + 5 + step for step in (-12, -11, -10, -1, 0, 1, 10, 11, 12)}
    longest = layer_of("gaussian(2,0.1)", tokens).longest()
    assert 1 + most(float(means.max()) - 1.5) <= longest <= 1 + most(float(means.max()) + 1.5)


@pytest.mark.parametrize("kernel", ["auto", "gather", "dense"])
def test_it_is_torchs_attention_under_the_mask(kernel):
    tokens = Tokens((6, 8), 2)
    layer = lively(f'pattern(of="axial|local(2)|random(0.05)",kernel="{kernel}")', DIM, HEADS, tokens)
    assert layer.gathers(48) == (kernel == "gather")
    x = images(2, tokens.count, DIM).requires_grad_()
    mask = torch.ones(50, 50, dtype=torch.bool)
    mask[2:, 2:] = False
    for patch, row in enumerate(layer.keys.tolist()):
        mask[2 + patch, [2 + key for key in row if key >= 0]] = True
    expected = layer.merge(SDPA(*layer.split(x), attn_mask=mask))
    y = layer(x)
    assert_close(y, expected)
    leaves = [x, layer.qkv.weight, layer.proj.weight]
    assert_close(slopes(y, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("kernel", ["auto", "gather"])
def test_visible_patches_keep_their_pairs(kernel):
    tokens = Tokens((6, 8), 1)
    layer = lively(f'pattern(of="local(2)|random(0.05)",kernel="{kernel}")', DIM, HEADS, tokens)
    x, ids = images(2, 1 + 30, DIM).requires_grad_(), visible(2, tokens, 30)
    whole, kept = layer.mask(None)[0], torch.cat([torch.zeros(2, 1, dtype=torch.long), ids + 1], dim=1)
    mask = whole[kept[:, :, None], kept[:, None, :]]
    expected = layer.merge(SDPA(*layer.split(x), attn_mask=mask[:, None]))
    assert_close(layer(x, ids), expected)
    assert_close(slopes(layer(x, ids), [x]), slopes(expected, [x]))


def test_the_declared_flops_are_of_what_runs():
    tokens = Tokens((14, 14), 1)
    softmax = build("softmax", DIM, HEADS, tokens).mix_flops(196, 197)
    assert build("pattern", DIM, HEADS, tokens).mix_flops(196, 197) == softmax
    layer = build('pattern(kernel="gather")', DIM, HEADS, tokens)
    assert layer.mix_flops(196, 197) == 4 * DIM * (197 + 196 * (1 + layer.longest()))
    assert build('pattern(of="local(1.2)")', DIM, HEADS, Tokens((32, 32), 1)).gathers(1024)


def test_what_is_drawn_is_saved_and_loaded():
    tokens = Tokens((7, 7), 1)
    layer, other = (layer_of(ORIGINAL, tokens, seed) for seed in (1, 2))
    assert not torch.equal(layer.keys, other.keys)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(layer.mask(None), other.mask(None))


def test_another_grid_has_another_draw_which_depends_on_the_layer_alone():
    tokens, wider = Tokens((7, 7), 1), Tokens((9, 8), 1)
    made = [layer_of(ORIGINAL, tokens, seed, layer).regrid(wider) for seed, layer in ((1, 0), (2, 0), (1, 1))]
    assert torch.equal(made[0].keys, made[1].keys)
    assert not torch.equal(made[0].keys, made[2].keys)
    assert torch.equal(layer_of("axial", tokens).regrid(wider).keys, layer_of("axial", wider).keys)
    assert torch.equal(layer_of(ORIGINAL, tokens, 4).regrid(tokens).keys, layer_of(ORIGINAL, tokens, 4).keys)


def test_two_draws_of_one_pattern_differ():
    one, two = (layer_of(of, Tokens((14, 14))).mask(None).sum() for of in ("random(0.1)", "random(0.1)|random(0.1)"))
    assert two - 196 == pytest.approx(1.9 * (one - 196).item(), rel=0.1)


def test_nothing_random_asks_for_no_generator():
    asked = []
    layer = layer_of("axial|window(2)", Tokens((5, 5)))
    layer.reset_parameters(lambda name: asked.append(name) or torch.Generator())
    assert "keys" not in asked


def test_parameters_are_four_projections():
    layer = build("pattern", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


@pytest.mark.parametrize(
    ("of", "says"),
    [
        ("", "'' is no rule: write rules with | between them"),
        ("axial||local(2)", "'' is no rule"),
        ("axial|local(2", "'local(2' is no rule"),
        ("axail", "there is no rule 'axail': did you mean 'axial'? known are axial, local, square"),
        ("axial(1)", "'axial(1)' has 1 numbers: write axial"),
        ("local", "'local' has 0 numbers: write local(distance)"),
        ("window(1,2,3)", "has 3 numbers: write window(side, shift)"),
        ("local(distance=2)", "local takes plain numbers: local(distance)"),
        ("local(__import__('os').getcwd())", "local takes plain numbers"),
        ("local('2')", "local takes plain numbers"),
        ("local(True)", "local takes plain numbers"),
        ("local(1e999)", "local takes plain numbers"),
        ("local(1)", "distance must be above 1"),
        ("square(1.5)", "radius must be a whole number of at least 1"),
        ("window(0)", "side must be a whole number of at least 1"),
        ("window(3,-1)", "shift must be a whole number of at least 0"),
        ("dilated(1)", "step must be a whole number of at least 2"),
        ("random(0)", "share must be above 0 and below 1"),
        ("random(1)", "share must be above 0 and below 1"),
        ("gaussian(0,0.1)", "sigma must be above 0"),
        ("gaussian(5)", "has 1 numbers: write gaussian(sigma, share)"),
    ],
)
def test_rules_that_make_no_sense_are_refused(of, says):
    with pytest.raises(ValueError) as refused:
        Pattern(DIM, HEADS, Tokens((5, 5)), of=of)
    assert says in str(refused.value)
    assert str(refused.value).startswith(f'pattern(of="{of}")')


@pytest.mark.parametrize(("of", "grid"), [("axial", (1, 9)), ("square(6)", (7, 7)), ("window(7)", (7, 7))])
def test_all_pairs_are_refused_as_softmax(of, grid):
    with pytest.raises(ValueError, match=rf"on a grid of {grid[0]} x {grid[1]} allows every pair: softmax"):
        build(f'pattern(of="{of}")', DIM, HEADS, Tokens(grid, 1))


@pytest.mark.parametrize("grid", [(1, 4), (3, 3), (5, 4), (7, 7)])
def test_the_proposed_options_are_not_refused(grid):
    tokens = Tokens(grid, 1)
    build("pattern(of='{of}')".format(**Pattern.options_for(tokens, tokens.patches)), DIM, HEADS, tokens)
