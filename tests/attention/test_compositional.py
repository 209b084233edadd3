"""Compositional attention against the paper's loops, and against softmax where there is nothing to choose."""

import inspect

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.compositional import Compositional, retrieve

DIM, HEADS = 24, 3
TOKENS = Tokens((3, 4), prefix=1)


def written_out(layer, x):
    """Search by search, value by value, token by token."""
    searches, retrievals, width = layer.num_heads, layer.retrievals, DIM // layer.num_heads
    y = layer.qkv(x)
    q, k, v = (y, y, y) if y.shape[-1] == DIM else y.split(DIM, dim=-1)
    query = layer.select_q(x)
    rows = []
    for image in range(len(x)):
        heads = []
        for s in range(searches):
            own = slice(s * width, (s + 1) * width)
            weights = (q[image, :, own] @ k[image, :, own].T / width**0.5).softmax(-1)
            retrieved = [weights @ part for part in v[image].chunk(retrievals, dim=-1)]
            tokens = []
            for n in range(x.shape[1]):
                mine = query[image, n, own]
                if layer.rule == "qk":
                    scores = [mine @ layer.select(part[n]) / width**0.5 for part in retrieved]
                else:
                    scores = [layer.select(torch.cat([part[n], mine]))[0] for part in retrieved]
                p = torch.stack(scores).softmax(0)
                tokens.append(sum(weight * part[n] for weight, part in zip(p, retrieved, strict=True)))
            heads.append(torch.stack(tokens))
        rows.append(torch.cat(heads, dim=-1))
    return layer.proj(torch.stack(rows))


def agree(layer, y, expected, x):
    """Same output, same gradients by the input and by everything that is learned."""
    assert_close(y, expected)
    leaves = [x, *layer.parameters()]
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    found, wanted = (
        torch.autograd.grad((z * weights).sum(), leaves, allow_unused=True, materialize_grads=True)
        for z in (y, expected)
    )
    for ours, other in zip(found, wanted, strict=True):
        assert_close(ours, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("share_qkv", [False, True])
@pytest.mark.parametrize("rule", ["qk", "linear"])
@pytest.mark.parametrize("retrievals", ['"heads"', 1, 2, 4])
def test_it_is_the_papers_loops(retrievals, rule, share_qkv):
    written = f'compositional(retrievals={retrievals},rule="{rule}",share_qkv={share_qkv})'
    layer, x = lively(written, DIM, HEADS, TOKENS), images(2, 13, DIM).requires_grad_()
    agree(layer, layer(x), written_out(layer, x), x)


def test_visible_patches_are_a_shorter_sequence():
    layer, x = lively("compositional", DIM, HEADS, TOKENS), images(2, 6, DIM).requires_grad_()
    agree(layer, layer(x, visible(2, TOKENS, 5)), written_out(layer, x), x)


@pytest.mark.parametrize("rule", ["qk", "linear"])
def test_one_search_with_one_value_is_softmax(rule):
    layer = lively(f'compositional(retrievals=1,rule="{rule}")', DIM, 1, TOKENS)
    softmax = build("softmax", DIM, 1, TOKENS).double()
    softmax.load_state_dict({name: layer.state_dict()[name] for name in softmax.state_dict()})
    x = images(2, 13, DIM).requires_grad_()
    assert_close(layer(x), softmax(x))
    names = list(softmax.state_dict())
    assert_close(
        slopes(layer(x), [x, *map(layer.get_parameter, names)]),
        slopes(softmax(x), [x, *map(softmax.get_parameter, names)]),
    )


def test_a_search_may_retrieve_a_value_of_another_head():
    """A choice of the first value gives every search the first head's channels."""
    layer = lively('compositional(rule="linear")', DIM, HEADS, TOKENS)
    x = images(1, 13, DIM)
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    heads = [z.unflatten(-1, (HEADS, -1)).transpose(1, 2) for z in (q, k)]
    first = retrieve(*heads, v, HEADS)[0, 2, :, 0]
    assert_close(first, (heads[0][0, 2] @ heads[1][0, 2].T / 8**0.5).softmax(-1) @ v[0, :, :8])


def test_what_the_softmax_over_retrievals_cancels_changes_nothing():
    x = images(2, 13, DIM)
    for rule, idle in (("qk", ["select.bias"]), ("linear", ["select.bias", "select_q.weight", "select_q.bias"])):
        layer = lively(f'compositional(rule="{rule}")', DIM, HEADS, TOKENS)
        before = layer(x)
        with torch.no_grad():
            for name in idle:
                layer.get_parameter(name).mul_(-3)
        assert_close(layer(x), before)
        assert_close(written_out(layer, x), before)


@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize(("share_qkv", "square"), [(True, 3), (False, 5)])
def test_the_linear_rule_has_as_many_parameters_as_published(share_qkv, square, heads):
    layer = build(f'compositional(rule="linear",share_qkv={share_qkv})', 48, heads, TOKENS)
    count = sum(parameter.numel() for parameter in layer.parameters())
    assert count == square * (48**2 + 48) + 2 * (48 // heads) + 1


def test_the_qk_rule_has_one_more_small_matrix_and_values_may_be_wider():
    layer = build("compositional(retrievals=2)", 48, 3, TOKENS)
    expected = 4 * 48**2 + 4 * 48 + 24 * 16 + 16 + 3 * 24 * 48 + 48
    assert sum(parameter.numel() for parameter in layer.parameters()) == expected
    bare = build("compositional(retrievals=2,bias=False)", 48, 3, TOKENS)
    assert sum(parameter.numel() for parameter in bare.parameters()) == 4 * 48**2 + 24 * 16 + 3 * 24 * 48


def test_values_cost_a_product_for_every_search():
    few, many = (build("compositional(retrievals=4)", 48, heads, Tokens((4, 4))) for heads in (2, 4))
    projections = [2 * 16 * 48 * (4 * 48 + 12 + heads * 12) for heads in (2, 4)]
    assert few.flops(16) - projections[0] == 2 * 16 * 16 * 48 * 3
    assert many.flops(16) - projections[1] == 2 * 16 * 16 * 48 * 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("retrievals=5", r"compositional\(retrievals=5\) on width 24: the number of retrievals must divide the width"),
        ("retrievals=0", "retrievals must be a whole number of at least 1"),
    ],
)
def test_values_that_are_no_part_of_the_width_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(f"compositional({options})", DIM, HEADS, TOKENS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "dot"}, r"compositional\(rule='dot'\): rule must be \"qk\" or \"linear\""),
        ({"retrievals": 2.0}, r"compositional\(retrievals=2.0\): retrievals must be a whole number of at least 1"),
        (
            {"retrievals": "rows"},
            r"compositional\(retrievals='rows'\): retrievals must be a whole number of at least 1",
        ),
    ],
)
def test_other_words_are_refused(options, words):
    # The tests' own checks of types would refuse them first.
    unchecked = inspect.unwrap(Compositional.__init__)
    with pytest.raises(ValueError, match=words):
        unchecked(object.__new__(Compositional), DIM, HEADS, TOKENS, **options)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 9)])
@pytest.mark.parametrize("options", ["", "(share_qkv=True)", '(rule="linear",bias=False)'])
def test_wanted_rows_are_those_of_the_loops(options, rows):
    layer, x = lively(f"compositional{options}", DIM, HEADS, TOKENS), images(2, 13, DIM).requires_grad_()
    agree(layer, layer(x, outputs=rows), written_out(layer, x)[:, rows], x)
