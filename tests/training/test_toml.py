import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.toml import write_toml

# TOML holds no surrogates and no number beyond 64 bits.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
VALUES = PLAIN | st.lists(PLAIN, max_size=3)
TABLES = st.recursive(
    st.dictionaries(TEXT, VALUES, max_size=4),
    lambda inner: st.dictionaries(TEXT, inner | VALUES, max_size=4),
    max_leaves=8,
)


@given(TABLES)
def test_what_is_written_is_read_back(table):
    assert tomllib.loads(write_toml(table)) == table


def test_none_is_left_out():
    assert write_toml({"train": {"lr": 1e-3, "amp_dtype": None}}) == "[train]\nlr = 0.001\n"


def test_what_toml_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="cannot be written"):
        write_toml({"a": object()})
