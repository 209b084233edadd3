"""Orthoformer against its definition, written as loops, and the faults of known code."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch.testing import assert_close

from saccade.attention import Tokens, build
from saccade.attention.orthoformer import Orthoformer, greedy_landmarks, orthoformer_attention

DIM, HEADS = 24, 3


def heads(n, e=8, dtype=torch.float64, batch=2):
    """Queries, keys and values as views of one tensor, as a layer has them."""
    drawn = torch.randn(batch, n, 3, 2, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [one.transpose(1, 2).requires_grad_() for one in drawn.to(dtype).unbind(2)]


def chosen_in_loops(q, landmarks):
    """The definition for one head: at each step every similarity to every chosen query, from the start."""
    chosen = [max(range(len(q)), key=lambda i: q[i].norm().item())]
    while len(chosen) < landmarks:
        nearest = {
            i: max(abs(torch.nn.functional.cosine_similarity(q[i], q[j], dim=0).item()) for j in chosen)
            for i in range(len(q))
            if i not in chosen
        }
        chosen.append(min(nearest, key=nearest.get))
    return sorted(chosen)


@torch.no_grad()
def landmarks_in_loops(q, landmarks):
    return torch.tensor([[chosen_in_loops(head, landmarks) for head in image] for image in q])


def in_loops(q, k, v, landmarks):
    """Every token's weights on the landmarks, and theirs on every token, one by one."""
    rows = torch.empty_like(q)
    e = q.shape[-1]
    for image, of_heads in enumerate(landmarks_in_loops(q, landmarks).tolist()):
        for head, places in enumerate(of_heads):
            marks = [q[image, head, place].detach() for place in places]
            keys, values = k[image, head], v[image, head]
            seen = [torch.softmax(keys @ mark / e**0.5, dim=0) @ values for mark in marks]
            for i, query in enumerate(q[image, head]):
                weights = torch.softmax(torch.stack([query @ mark for mark in marks]) / e**0.5, dim=0)
                rows[image, head, i] = weights @ torch.stack(seen)
    return rows


@pytest.mark.parametrize("landmarks", [1, 2, 7, 19])
def test_landmarks_are_those_of_the_definition(landmarks):
    q, *_ = heads(20)
    assert torch.equal(greedy_landmarks(q, landmarks), landmarks_in_loops(q, landmarks))


def test_they_are_on_long_sequences_in_float32_too():
    q, *_ = heads(300, e=16, dtype=torch.float32, batch=1)
    assert torch.equal(greedy_landmarks(q, 24), landmarks_in_loops(q.double(), 24))


@pytest.mark.parametrize("landmarks", [1, 2, 7, 19])
def test_it_is_the_definition_in_loops(landmarks):
    leaves = heads(20)
    seen, expected = orthoformer_attention(*leaves, landmarks), in_loops(*leaves, landmarks)
    assert_close(seen, expected)
    assert_close(slopes(seen, leaves), slopes(expected, leaves))


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_layer_is_the_definition_between_its_projections(prefix):
    tokens = Tokens((3, 5), prefix)
    layer = lively("orthoformer(landmarks=4)", DIM, HEADS, tokens)
    x = images(2, tokens.count, DIM).requires_grad_()
    expected = layer.merge(in_loops(*layer.split(x), 4))
    leaves = [x, *layer.parameters()]
    assert_close(layer(x), expected)
    assert_close(slopes(layer(x), leaves), slopes(expected, leaves))


def test_some_patches_are_a_shorter_sequence():
    tokens = Tokens((3, 5), prefix=1)
    layer = lively("orthoformer(landmarks=4)", DIM, HEADS, tokens)
    x, ids = images(2, 1 + 6, DIM), visible(2, tokens, 6)
    assert_close(layer(x, ids), layer.merge(in_loops(*layer.split(x), 4)))


def test_it_starts_from_the_longest_query_and_training_changes_nothing():
    q, *_ = heads(20)
    first = q.norm(dim=-1).argmax(-1, keepdim=True)
    assert torch.equal(greedy_landmarks(q, 1), first)
    layer, x = lively("orthoformer", DIM, HEADS, Tokens((4, 5))), images(2, 20, DIM)
    state = torch.random.get_rng_state()
    assert torch.equal(layer.train()(x), layer.eval()(x))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_opposite_of_a_landmark_is_no_landmark():
    # What counts is |cos|: opposite queries tell the same.
    q = torch.tensor([[3.0, 0, 0], [-2.0, 0.1, 0], [0, 1.0, 0], [0, 0.1, 0.5], [1, 1, 1]])[None, None]
    assert greedy_landmarks(q, 3).tolist() == [[[0, 2, 3]]]


def test_landmarks_are_distinct_and_ascend_even_where_queries_are_alike():
    for q in (torch.ones(1, 2, 30, 4), torch.zeros(1, 2, 30, 4), torch.eye(4).repeat(1, 2, 8, 1)):
        places = greedy_landmarks(q, 29)
        assert (places.diff(dim=-1) > 0).all()
        assert orthoformer_attention(q, q, q, 29).isfinite().all()


def test_alike_queries_are_chosen_last():
    q = torch.cat([torch.eye(6)[[0] * 5], torch.eye(6)[1:]])[None, None]
    # The queries are of one length: the first of them starts.
    assert greedy_landmarks(q, 6).tolist() == [[[0, 5, 6, 7, 8, 9]]]


def test_landmarks_are_constants():
    q, k, v = heads(20)
    with_marks = orthoformer_attention(q, k, v, 5)
    places = greedy_landmarks(q, 5)[..., None].expand(-1, -1, -1, 8)
    moving = q.gather(2, places)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    free = sdpa(q, moving, sdpa(moving, k, v))
    assert_close(with_marks, free)
    (of_q, *others), (through_marks, *expected) = slopes(with_marks, [q, k, v]), slopes(free, [q, k, v])
    assert_close(others, expected)
    assert (of_q - through_marks).abs().max() > 1e-3


def test_with_nearly_all_queries_as_landmarks_it_is_far_from_softmax():
    leaves = heads(20)
    softmax = torch.nn.functional.scaled_dot_product_attention(*leaves)
    assert (orthoformer_attention(*leaves, 19) - softmax).norm() / softmax.norm() > 0.1


@pytest.mark.parametrize("bf16", [False, True])
def test_queries_are_compared_in_float32(bf16):
    q, *_ = heads(300, e=16, dtype=torch.float32)
    q = q.bfloat16() if bf16 else q
    expected = greedy_landmarks(q.double(), 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(greedy_landmarks(q, 40), expected)


def test_no_matrix_of_all_pairs_is_kept():
    layer = build("orthoformer(landmarks=8)", 32, 4, Tokens((20, 20)))
    largest = 0

    def note(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(1, 400, 32))
    assert largest < 4 * 400 * 400 / 4


def test_parameters_are_four_projections():
    layer = build("orthoformer(landmarks=5)", DIM, HEADS, Tokens((3, 4), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * DIM**2 + 4 * DIM


@pytest.mark.parametrize(
    ("attention", "patches", "says"),
    [
        ("orthoformer(landmarks=50)", None, r"landmarks=50\) on 50 tokens: landmarks must be 1..49; more would be"),
        ("orthoformer(landmarks=80)", None, r"landmarks=80\) on 50 tokens: landmarks must be 1..49; more would be"),
        ("orthoformer(landmarks=13)", 12, "on 13 tokens: landmarks must be 1..12"),
        ("orthoformer(landmarks=0)", None, "landmarks must be a whole number of at least 1"),
        ("orthoformer(num_landmarks=4)", None, "did you mean landmarks?"),
    ],
)
def test_what_makes_no_sense_is_refused(attention, patches, says):
    with pytest.raises(ValueError, match=says.replace("n landmarks?", r"n landmarks\?")):
        build(attention, 32, 4, Tokens((7, 7), prefix=1), patches=patches)


def test_a_lone_token_is_refused():
    with pytest.raises(ValueError, match="on 1 tokens: landmarks need at least 2 tokens"):
        build("orthoformer(landmarks=1)", 32, 4, Tokens((1, 1)))
    build("orthoformer(landmarks=49)", 32, 4, Tokens((7, 7), prefix=1))


@pytest.mark.parametrize("count", [8, 5])
def test_fewer_tokens_than_landmarks_are_refused_by_the_layer_itself(count):
    layer = build("orthoformer(landmarks=8)", 32, 4, Tokens((4, 5)))
    with pytest.raises(ValueError, match=f"landmarks=8.* on {count} tokens"):
        layer(torch.randn(1, count, 32), torch.arange(count)[None])


@pytest.mark.parametrize("patches", [2, 3, 12, 49, 196])
def test_the_proposed_options_are_never_refused(patches):
    tokens = Tokens((1, patches))
    assert Orthoformer(32, 4, tokens, **Orthoformer.options_for(tokens, patches)).refusal(patches) is None
