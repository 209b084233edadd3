"""Names and options are resolved or refused in helpful words; anybody's class is found, in a module or a file."""

import subprocess
import sys

import pytest
import torch

from saccade.attention import (
    TABLE,
    Tokens,
    attention_class,
    build,
    fitting,
    list_attentions,
    options_of,
    parse,
    resolve,
    resolved_text,
)
from saccade.attention.base import Attention, MultiHead

TOKENS = Tokens((4, 5), prefix=1)

MINE = """
import torch
from saccade.attention.base import Attention

class Mine(Attention):
    '''Adds the mean.'''

    paper = cost = "mine"
    any_length, free_of_order, needs_grid, exact_when = True, True, False, "never"
    order_free = True

    def __init__(self, dim, num_heads, tokens, *, layer=0, rank=2):
        super().__init__(dim, num_heads, tokens, layer=layer)
        self.rank = rank

    def forward(self, x, patches=None, outputs=None):
        y = x + self.rank * x.mean(1, keepdim=True)
        return y if outputs is None else y[:, outputs]

    reference = forward

    def flops(self, patches, rows=None):
        return 0

    def reset_parameters(self, generator_of):
        pass

class Needy(Mine):
    def __init__(self, dim, num_heads, tokens, *, rank, layer=0):
        super().__init__(dim, num_heads, tokens, layer=layer, rank=rank)

class Fixed(Mine):
    def __init__(self, dim, num_heads, tokens, *, layer=0, scale=1.0):
        super().__init__(dim, num_heads, tokens, layer=layer, rank=2)

class Unfinished(Attention):
    pass

class Stranger:
    pass
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file of somebody's class, which lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    place = tmp_path / "somebodys.py"
    place.write_text(MINE)
    yield place
    sys.modules.pop("somebodys", None)


@pytest.mark.parametrize("name", TABLE)
def test_every_name_is_a_class_that_is_built(name):
    cls = attention_class(name)
    assert issubclass(cls, Attention)
    assert cls.__module__ in TABLE[name]
    tokens = Tokens((8, 8), prefix=1)
    layer = build(fitting(name, 16, 2, tokens), 16, 2, tokens, layer=3)
    assert type(layer) is cls
    assert (layer.dim, layer.num_heads, layer.tokens, layer.layer) == (16, 2, tokens, 3)
    assert layer(torch.randn(2, 65, 16)).shape == (2, 65, 16)


def test_the_list_is_the_table():
    assert list_attentions() == list(TABLE)
    assert list_attentions() is not list_attentions()


def test_resolving_writes_every_option_out():
    expected = 'softmax(bias=True, kernel="auto", qk_norm=False, qkv_bias=True, rope=False)'
    assert str(resolve(parse("softmax"))) == expected
    assert resolved_text("softmax", 12) == expected
    assert resolved_text("softmax*2,linear(rope=True)", 3) == (
        f"{expected}*2,linear(bias=True, qk_norm=False, qkv_bias=True, rope=True)*1"
    )
    assert options_of(attention_class("lambda"))["position"] == "conv"


@pytest.mark.parametrize("name", TABLE)
def test_a_resolved_text_resolves_to_itself(name):
    assert resolved_text(resolved_text(name, 2), 2) == resolved_text(name, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nystrm", r"there is no attention 'nystrm': did you mean 'nystrom'\? known are softmax, .*my.module:Mine"),
        ("xyz", r"there is no attention 'xyz': known are softmax"),
        ("nystrom(landmark=3)", r"no option 'landmark': did you mean landmarks\? its options are bias, convolution"),
        ("softmax(dim=3)", "softmax has no option 'dim'"),
        ("softmax(layer=3)", "softmax has no option 'layer'"),
        ("softmax(tokens=3)", "softmax has no option 'tokens'"),
        ("fourier(rope=True)", r"fourier has no option 'rope': .*its options are norm, out_proj, per_head, two_d"),
        ("lambda(qk_norm=True)", "no option 'qk_norm'"),
        ("nystrom(landmarks=20)", "landmarks must be 1..19"),
        ("no.such.module:Mine", "there is no module 'no.such.module' in /"),
        ("no/such/file.py:Mine", "there is no file no/such/file.py"),
        (":Mine", "'' is no module: write my.module:Mine or path/to/file.py:Mine"),
        (".relative:Mine", "'.relative' is no module"),
        ("saccade.attention:Mine", "'Mine' is no subclass"),
        ("saccade.attention.tokens:Tokens", "is no subclass of saccade.attention.base.Attention"),
        ("__main__:Mine", "a class in __main__ cannot be found by other processes; put it into a file of its own"),
    ],
)
def test_what_cannot_be_had_is_refused_in_helpful_words(text, words):
    with pytest.raises(ValueError, match=words):
        build(text, 16, 2, TOKENS)


def test_the_number_of_visible_patches_decides():
    assert build("nystrom(landmarks=12)", 16, 2, TOKENS, patches=13).landmarks == 12
    with pytest.raises(ValueError, match="on 13 tokens, 12 of them patches"):
        build("nystrom(landmarks=12)", 16, 2, TOKENS, patches=12)


def test_anybodys_class_is_found_in_a_module_of_the_current_folder(file):
    layer = build("somebodys:Mine(rank=8)", 16, 2, TOKENS)
    assert type(layer).__name__ == "Mine"
    assert layer.rank == 8
    assert str(resolve(parse("somebodys:Mine"))) == "somebodys:Mine(rank=2)"
    assert resolved_text("somebodys:Mine*2,softmax", 3).startswith("somebodys:Mine(rank=2)*2,softmax(")


def test_anybodys_class_is_found_in_a_file(file, tmp_path, monkeypatch):
    there = build(f"{file}:Mine(rank=3)", 16, 2, TOKENS)
    here = build("somebodys.py:Mine(rank=3)", 16, 2, TOKENS)
    assert type(there) is type(here)
    with pytest.raises(ValueError, match=r"somebodys.py:Mine has no option 'rnk': did you mean rank\?"):
        build("somebodys.py:Mine(rnk=3)", 16, 2, TOKENS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Yours", "whose subclasses are: "),
        ("Stranger", "is no subclass of saccade.attention.base.Attention"),
        ("Needy", "somebodys.py:Needy needs the option rank, which has no default"),
        ("Unfinished", "Unfinished has no .*; saccade.attention.base says"),
    ],
)
def test_a_class_that_will_not_do_is_refused(file, name, words):
    with pytest.raises(ValueError, match=words):
        build(f"somebodys.py:{name}", 16, 2, TOKENS)


def test_an_option_without_a_default_may_be_given(file):
    assert build("somebodys:Needy(rank=5)", 16, 2, TOKENS).rank == 5


@pytest.mark.parametrize("place", ["somebodys", "somebodys.py"])
def test_what_is_wrong_inside_a_users_file_is_shown_and_not_swallowed(file, place):
    file.write_text("import some_missing_thing")
    with pytest.raises(ModuleNotFoundError, match="some_missing_thing"):
        build(f"{place}:Mine", 16, 2, TOKENS)
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        build(f"{place}:Mine", 16, 2, TOKENS)
    file.write_text(MINE)
    assert build(f"{place}:Mine", 16, 2, TOKENS).rank == 2


def test_options_that_a_class_does_not_pass_on_are_not_its_own(file):
    assert options_of(attention_class("somebodys:Fixed")) == {"scale": 1.0}
    with pytest.raises(ValueError, match="somebodys:Fixed has no option 'rank'"):
        build("somebodys:Fixed(rank=3)", 16, 2, TOKENS)


def test_a_mixture_is_no_single_layer():
    with pytest.raises(ValueError, match="is no attention"):
        build("softmax*2", 16, 2, TOKENS)


def test_options_are_those_of_the_constructor_and_of_whoever_it_passes_them_to():
    shared = {"bias", "qkv_bias", "qk_norm", "rope"}
    assert set(options_of(MultiHead)) == shared
    assert set(options_of(attention_class("linformer"))) == shared | {"k", "share_kv", "rescale"}
    assert set(options_of(attention_class("fourier"))) == {"two_d", "per_head", "out_proj", "norm"}


def test_names_are_read_without_torch():
    code = (
        "import sys; from saccade.attention import list_attentions, parse_layers, Tokens\n"
        "parse_layers('linear(rope=True)*2,softmax', 3); list_attentions(); Tokens((2, 2))\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("written", ["linear(bias='False')", "softmax(rope=1)", "linformer(share_kv='no')"])
def test_only_true_and_false_are_truth_values(written):
    with pytest.raises(ValueError, match="must be True or False, not"):
        build(written, 16, 2, Tokens((8, 8), prefix=1))


def test_a_bare_name_that_is_refused_is_told_with_options_that_fit():
    with pytest.raises(ValueError, match=r"at this size nystrom\(landmarks=1\) fits"):
        build("nystrom", 16, 2, Tokens((2, 3)))
    with pytest.raises(ValueError, match=r"landmarks must be 1\.\.5") as refused:
        build("nystrom(landmarks=9)", 16, 2, Tokens((2, 3)))
    assert "fits" not in str(refused.value)
    with pytest.raises(ValueError, match="window") as refused:
        build("window", 16, 2, Tokens((1, 1)))
    assert "fits" not in str(refused.value)
