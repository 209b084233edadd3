"""The written form: what is written is read back, literals only, and faults are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.attention.written import Written, parse, parse_layers, split_list, write_layers

names = st.from_regex(r"[a-z_][\w.:/-]{0,15}", fullmatch=True)
keys = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
plain = st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
values = plain | st.lists(plain | st.tuples(plain), max_size=3).map(tuple)
attentions = st.tuples(names, st.dictionaries(keys, values, max_size=4))


def made(name, options):
    return Written(name, tuple(sorted(options.items())))


@given(attentions)
def test_what_is_written_is_read_back(attention):
    written = made(*attention)
    assert parse(str(written)) == written


@given(st.lists(st.tuples(attentions, st.integers(1, 4)), min_size=1, max_size=4))
def test_mixtures_are_read_back(runs):
    layers = tuple(made(*attention) for attention, times in runs for _ in range(times))
    assert parse_layers(write_layers(layers), len(layers)) == layers


@given(st.lists(attentions, min_size=1, max_size=4))
def test_lists_are_split_at_the_spaces_outside(listed):
    written = [made(*attention) for attention in listed]
    assert [parse(text) for text in split_list("  ".join(map(str, written)))] == written


@given(st.text(max_size=40) | st.text("ab=(),*'\"[]1 \\", max_size=15))
def test_any_text_is_refused_in_words_or_read_for_good(text):
    try:
        layers = parse_layers(text, 2)
    except ValueError as error:
        assert len(str(error).split()) > 3  # noqa: PT017
    else:
        assert parse_layers(write_layers(layers), 2) == layers


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("softmax", "softmax", {}),
        (" softmax ( ) ", "softmax", {}),
        ("nystrom(landmarks=16)", "nystrom", {"landmarks": 16}),
        ('lambda(position="none", r=7)', "lambda", {"position": "none", "r": 7}),
        ("lambda(position='none')", "lambda", {"position": "none"}),
        ("my.module:Mine(rank=-8,scale=1e-3)", "my.module:Mine", {"rank": -8, "scale": 1e-3}),
        ("path/to/mine.py:Mine(sizes=[1,2])", "path/to/mine.py:Mine", {"sizes": (1, 2)}),
        ('pattern(of="axial|local(2)|random(0.01)")', "pattern", {"of": "axial|local(2)|random(0.01)"}),
        (r'mine(text="a \" b)")', "mine", {"text": 'a " b)'}),
        ("mine(a=True,b=(1,(2,'x')))", "mine", {"a": True, "b": (1, (2, "x"))}),
    ],
)
def test_names_and_literals_are_read(text, name, options):
    assert parse(text) == Written(name, tuple(sorted(options.items())))


def test_options_are_the_same_in_any_order():
    assert parse("nystrom(landmarks=3,iterations=2)") == parse("nystrom(iterations=2, landmarks=3)")


@pytest.mark.parametrize(
    "text",
    [
        "nystrom(landmarks=__import__('os').getpid())",
        "nystrom(landmarks=[].__class__)",
        "nystrom(landmarks=open('/etc/passwd').read())",
        "nystrom(landmarks=(lambda: 3)())",
        "nystrom(landmarks=3 if True else 4)",
        "nystrom(landmarks=f'{1}')",
        "nystrom(landmarks=2**99999999)",
        "nystrom(landmarks='a'*999999999)",
        "nystrom(landmarks=[1 for _ in range(9)])",
        "nystrom(landmarks={1: 2})",
        "nystrom(landmarks={1})",
        "nystrom(landmarks=None)",
        "nystrom(landmarks=b'a')",
        "nystrom(landmarks=1j)",
        "nystrom(landmarks=1e999)",
        "nystrom(landmarks=nan)",
        "nystrom(landmarks=" + "(" * 500 + ")" * 500 + ")",
        "nystrom(landmarks=" + "-" * 100_000 + "1)",
        "nystrom(landmarks=" + "9" * 10_000 + ")",
        "nystrom(**{'landmarks': 3})",
        "nystrom(*[1])",
        "nystrom(landmarks.x=3)",
        "nystrom(landmarks=3);print(1)",
        "nystrom(landmarks=3\0)",
    ],
)
def test_only_literals_are_values(text):
    with pytest.raises(ValueError, match="nystrom"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write a name with options"),
        ("nystrom(16)", r"'16' is no option: write name=value"),
        ("nystrom(landmarks=16", r"is no attention: write a name with options"),
        ("nystrom landmarks=16", "is no attention"),
        ("nystrom(landmarks=16,landmarks=8)", "landmarks is given twice"),
        ("lambda(position=none)", r'a word needs quotes: position="none"'),
        ("nystrom(landmarks=)", "landmarks= is no number"),
        ("nystrom(landmarks=1,,iterations=2)", "nothing stands between two commas"),
        ('lambda(position="none)', "is missing at the end"),
        ("nystrom(landmarks=(1)))", r"a '\)' closes nothing"),
    ],
)
def test_faults_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("text", "depth", "layers"),
    [
        ("softmax", 3, ["softmax"] * 3),
        ("softmax*3", 3, ["softmax"] * 3),
        ("linear*2, softmax", 3, ["linear", "linear", "softmax"]),
        ('pattern(of="a,b*4")*2,softmax', 3, ['pattern(of="a,b*4")'] * 2 + ["softmax"]),
        ("nystrom(landmarks=3, iterations=2)", 2, ["nystrom(landmarks=3,iterations=2)"] * 2),
        ('pattern(of="local*8")', 2, ['pattern(of="local*8")'] * 2),
    ],
)
def test_mixtures_are_split_outside_brackets_and_quotes(text, depth, layers):
    assert parse_layers(text, depth) == tuple(map(parse, layers))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linear*2,softmax*2", "describes 4 layers, but the model has 3: the counts must sum to 3"),
        ("softmax*2", "describes 2 layers"),
        ("softmax*999999999999999", "describes 999999999999999 layers"),
        ("softmax*0", "repeats a layer 0 times"),
        ("softmax,,linear", "nothing stands between two commas"),
        ("softmax*2,", "nothing stands between"),
        ("3*softmax", "is no attention"),
        ("softmax*-3", "is no attention"),
        ("  ", "no attention is given"),
    ],
)
def test_mixtures_that_do_not_fit_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_layers(text, 3)


def test_the_shortest_text_is_written():
    assert write_layers((parse("linear"),) * 3) == "linear"
    assert write_layers(parse_layers("linear, linear ,softmax", 3)) == "linear*2,softmax*1"
    assert str(parse("lambda(r=3,position='none')")) == 'lambda(position="none", r=3)'
