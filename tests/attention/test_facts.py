"""What is read from the source is what the classes say."""

import inspect
import subprocess
import sys

import pytest

from saccade.attention import TABLE, attention_class, options_of
from saccade.attention.facts import facts, listing


@pytest.mark.parametrize("name", TABLE)
def test_facts_are_the_classs(name):
    read, cls = facts(name), attention_class(name)
    for fact in ("paper", "cost", "any_length", "free_of_order", "needs_grid", "exact_when"):
        assert getattr(read, fact) == getattr(cls, fact)
    assert read.title == inspect.getdoc(cls).splitlines()[0]
    assert read.options == options_of(cls)


def test_the_list_is_the_tables():
    assert [one.name for one in listing()] == list(TABLE)


@pytest.mark.parametrize("one", listing(), ids=lambda one: one.name)
def test_every_mechanism_says_where_it_comes_from(one):
    assert "https://" in one.paper
    assert one.title.endswith(".")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="there is no attention 'xyz': known are softmax"):
        facts("xyz")


def test_reading_them_does_not_import_torch():
    code = "import sys; from saccade.attention.facts import listing; listing(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
