"""What the documents say is what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

from saccade.attention import TABLE, Tokens, build
from saccade.attention.facts import facts

ROOT = Path(__file__).resolve().parent.parent

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


def test_the_page_of_attentions_is_what_the_classes_say():
    text = (ROOT / "docs" / "attentions.md").read_text(encoding="utf-8")
    assert text == generate.attentions(), "run `python docs/generate.py`"


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", generate.attentions(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_mechanism_has_a_row_and_a_section():
    assert list(sections()) == ["Shared options", *TABLE]
    rows = [line.split(" | ") for line in generate.attentions().splitlines() if line.startswith("| [")]
    assert [row[0].removeprefix("| ") for row in rows] == [f"[{name}](#{name})" for name in TABLE]
    assert {len(row) for row in rows} == {8}


@pytest.mark.parametrize("name", TABLE)
def test_every_option_stands_somewhere_with_its_default_and_its_meaning(name):
    one = facts(name)
    for option, default in one.options.items():
        place = "Shared options" if option in one.shared else name
        assert one.meanings[option], f"the Args of {TABLE[name]} do not say what {option} means"
        assert f"| `{option}` | `{default!r}` | " in sections()[place]
    assert not set(one.meanings) - set(one.options), f"the Args of {TABLE[name]} name what is no option"


@pytest.mark.parametrize("name", TABLE)
def test_what_stands_there_can_be_written(name):
    written = re.search(r"Written `([^`]+)`", sections()[name]).group(1)
    layer = build(written, 16, 2, Tokens((14, 14), prefix=1))
    assert type(layer).__name__ == TABLE[name].split(":")[1]


def test_signs_of_formulas_are_no_markup():
    assert (
        generate._table(("a", "b"), [("x * y | z", "`p*<q` <r>")]).splitlines()[2] == r"| x \* y \| z | `p*<q` \<r> |"
    )
