"""The walls of the house: imports point one way, torch waits until it is needed, the map is true."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "saccade"
MODULES = sorted(PACKAGE.rglob("*.py"))

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


def station(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The stations of saccade that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names if node.module == "saccade")}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("saccade.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    own = generate.STATIONS.index(station(path))
    for name in imported(path):
        assert generate.STATIONS.index(name) <= own, f"{path} imports {name}"


def test_mechanisms_do_not_import_each_other():
    from saccade.attention import TABLE

    mechanisms = {place.split(":")[0] for place in TABLE.values()}
    for module in mechanisms:
        tree = ast.parse((PACKAGE / "attention" / f"{module.split('.')[-1]}.py").read_text(encoding="utf-8"))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & mechanisms, module


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["attentions"],
        ["attentions", "--json"],
        ["models"],
        ["recipes"],
        ["compare", "--help"],
        ["bench", "--help"],
    ],
    ids=" ".join,
)
def test_torch_waits_until_it_is_needed(arguments):
    code = f"import sys; from saccade.cli import run; assert run({arguments!r}) == 0; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_is_on_the_map_of_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert text == generate.with_map(text), "run `python docs/generate.py`"


def dropped_comparisons(path: Path) -> list[int]:
    """Lines where something is compared and the answer thrown away."""
    comparing = {"allclose", "equal", "isclose", "array_equal"}
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr):
            called = node.value.func if isinstance(node.value, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", ""))
            if isinstance(node.value, ast.Compare) or name in comparing:
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "path",
    [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_no_comparison_is_dropped(path):
    assert dropped_comparisons(path) == []


def test_a_dropped_comparison_is_found(tmp_path):
    (tmp_path / "bad.py").write_text("torch.allclose(a, b)\na == b\nassert torch.allclose(a, b)\n")
    assert dropped_comparisons(tmp_path / "bad.py") == [1, 2]


def test_importing_the_package_offers_its_names_without_torch():
    code = "import sys, saccade; assert 'create_model' in dir(saccade); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_offered_name_exists():
    import saccade

    for name in saccade.__all__:
        assert getattr(saccade, name) is not None
