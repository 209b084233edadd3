"""What the documents say is what the code says."""

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from saccade.attention import TABLE, Tokens, build
from saccade.attention.contract import CLAUSES, check
from saccade.attention.facts import facts
from saccade.cli import run
from saccade.compat import xformers

ROOT = Path(__file__).resolve().parent.parent

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


def test_the_page_of_attentions_is_what_the_classes_say():
    text = (ROOT / "docs" / "attentions.md").read_text(encoding="utf-8")
    assert text == generate.attentions(), "run `python docs/generate.py`"


def test_the_page_of_xformers_is_what_its_classes_say():
    text = (ROOT / "docs" / "xformers.md").read_text(encoding="utf-8")
    assert text == generate.xformers(), "run `python docs/generate.py`"


def test_the_page_of_the_doctor_is_what_its_rules_say():
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert text == generate.doctor(), "run `python docs/generate.py`"


def test_every_class_and_option_of_xformers_is_explained():
    parts = re.split(r"^## (.+)$", generate.xformers(), flags=re.MULTILINE)
    explained = dict(zip(parts[1::2], parts[2::2], strict=True))
    classes = [*xformers.ATTENTION_REGISTRY.values(), xformers.MultiHeadDispatch]
    assert list(explained) == [cls.__name__ for cls in classes]
    assert set(xformers.SUCCESSORS) == set(xformers.ATTENTION_REGISTRY)
    assert set(xformers.SUCCESSORS.values()) <= set(TABLE)
    for cls in classes:
        listed = re.findall(r"^\* `(\w+)`: ", explained[cls.__name__], flags=re.MULTILINE)
        assert sorted(listed) == sorted(inspect.signature(cls).parameters), cls


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
        # A bar would end the cell.
        value = repr(default).replace("|", r"\|")
        assert f"| `{option}` | `{value}` | " in sections()[place]
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


IN_PROCESS = [clause for clause in CLAUSES if clause != "compiles"]
ADDING = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """mine.py as docs/adding.md prints it, in the current folder."""
    file = tmp_path / "mine.py"
    file.write_text(re.search(r"```python\n(.*?)```", ADDING, re.DOTALL).group(1), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return file


def saccade(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own: torch.compile cannot look through the tests' shape checks."""
    return subprocess.run(
        [sys.executable, "-m", "saccade", *arguments], capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.usefixtures("mine")
def test_the_worked_example_keeps_the_contract_as_the_page_says():
    done = saccade("check", "mine.py:Mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ADDING


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 2 * self.tokens.patches * self.side**2", "return 2 * patches * self.side**2"),
        ("    def reach(", "    def unused_reach("),
    ],
    ids=["mix_flops", "reach"],
)
def test_what_the_page_breaks_is_found_in_the_words_it_prints(mine, old, new):
    whole = mine.read_text(encoding="utf-8")
    assert whole.count(old) == 1
    mine.write_text(whole.replace(old, new), encoding="utf-8")
    broken = [verdict for verdict in check("mine.py:Mine", IN_PROCESS) if not verdict.ok]
    assert [f"mine.py:Mine breaks {verdict.clause}: {verdict.sentence}" in ADDING for verdict in broken] == [True]


@pytest.mark.usefixtures("mine")
def test_a_wrong_option_of_the_worked_example_is_refused_as_the_page_says(capsys):
    assert run(["check", "mine.py:Mine(side=4)"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] in ADDING


@pytest.mark.usefixtures("mine")
def test_the_worked_example_can_be_compared():
    small = ["--set", "train.epochs=1", "--set", "data.limit=64", "--seeds", "1", "--repeats", "1", "--threads", "1"]
    done = saccade("compare", "softmax", "mine.py:Mine", *small, "--anyway", "--output", "compared", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()][:-1]
    assert [row["attention"] for row in rows if not row["baseline"]] == ["mine.py:Mine"]
