"""Every mechanism keeps every clause, and every clause catches what it is there for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saccade.attention import TABLE, Tokens
from saccade.attention.contract import CLAUSES, check, gate
from saccade.attention.made import Broken

FILE = Path(__file__).with_name("broken.py")

# torch.compile cannot look through the tests' shape checks: that clause runs in a process of its own.
IN_PROCESS = [clause for clause in CLAUSES if clause != "compiles"]

VARIANTS = [
    'softmax(kernel="explicit")',
    "softmax(qk_norm=True, qkv_bias=False)",
    "softmax(rope=True)",
    "linear(bias=False)",
    "linear(rope=True)",
    'efficient(norm="scale")',
    "efficient(rope=True, qk_norm=True)",
    "focused(power=2, convolution=3, rope=True)",
    "focused(convolution=0, qk_norm=True)",
    "hydra(mean=True, qkv_bias=False)",
    "cosformer(two_d=True)",
    "cosformer(rope=True)",
    "performer(features=5, scaling=1, redraw=0)",
    'performer(kernel="relu", features=30)',
    "performer(rope=True, qkv_bias=False)",
    "nystrom(landmarks=5, convolution=5)",
    "nystrom(landmarks=1, iterations=2)",
    "nystrom(landmarks=30)",
    "nystrom(two_d=True, landmarks=9)",
    "nystrom(two_d=True, landmarks=4, convolution=3)",
    "linformer(k=4, share_kv=True, rescale=False)",
    "orthoformer(landmarks=1, bias=False)",
    "orthoformer(landmarks=19, qk_norm=True)",
    "fourier(two_d=True, out_proj=True)",
    'fourier(per_head=True, norm="forward")',
    'lambda(position="table", u=2)',
    'lambda(position="none", norm="layer")',
    "xca(qkv_bias=False)",
    "differential(dual=True, qk_norm=True)",
    "differential(rope=True)",
    'synthesizer(kind="dense")',
    'synthesizer(kind="random")',
    'synthesizer(kind="factorized_random", rank=3)',
    "agent(agents=2, agent_bias=True, convolution=False)",
    "agent(agents=4, agent_bias=True)",
    "agent(agents=1, convolution=False)",
    "local(radius=1)",
    'local(radius=3, metric="euclid")',
    "local(radius=2, rope=True)",
    "window(w=3, shift=1)",
    "window(w=4, shift=3, relative_bias=True)",
    "window(w=2, shift=1, relative_bias=True, rope=True)",
    "dilated(k=3)",
    "dilated(k=4)",
    "pooling(pool_size=5)",
    "pooling(pool_size=9)",
    'block_sparse(layout="fixed", order="raster")',
    'block_sparse(layout="bigbird(random=2)", per_head=True, rope=True)',
    'pattern(of="local(1.5)|random(0.05)", kernel="gather")',
    'pattern(of="window(3, 1)|dilated(3)", rope=True)',
    "global(every=0, patches=(3, 7))",
    "global(every=2, rope=True)",
    "global(every=0)",
    'random(share=0.1, kernel="gather")',
    'random(share=0.3, kernel="dense", rope=True)',
    "visual(kernel=7)",
    "visual(kernel=5, dilation=1)",
    "compositional(retrievals=4, bias=False)",
    'compositional(rule="linear", share_qkv=True)',
]

COMPILED_VARIANTS = [
    "linear(rope=True)",
    "cosformer(two_d=True)",
    "nystrom(landmarks=5, convolution=5)",
    "window(w=2, relative_bias=True)",
    "dilated(k=4)",
]


def broken(name, clause):
    """The sentence with which a clause refuses a class of broken.py."""
    [verdict] = check(f"{FILE}:{name}", [clause])
    assert not verdict.ok, f"{clause} did not see the fault of {name}"
    return verdict.sentence


@pytest.mark.parametrize("clause", IN_PROCESS)
@pytest.mark.parametrize("name", TABLE)
def test_every_mechanism_keeps_every_clause(name, clause):
    [verdict] = check(name, [clause])
    assert verdict.ok, verdict.sentence


@pytest.mark.parametrize("attention", VARIANTS)
def test_options_keep_every_clause(attention):
    assert [verdict for verdict in check(attention, IN_PROCESS) if not verdict.ok] == []


@pytest.fixture(scope="module")
def compiled():
    """Verdicts of the clause `compiles`, by attention."""
    names = [*TABLE, *COMPILED_VARIANTS, f"{FILE}:LooksAtValues"]
    code = (
        "import json, sys; from saccade.attention.contract import check\n"
        "for name in sys.argv[1:]: print(json.dumps([name, check(name, ['compiles'])[0].sentence]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("attention", [*TABLE, *COMPILED_VARIANTS])
def test_every_mechanism_compiles_as_a_whole(compiled, attention):
    assert compiled[attention].startswith("torch.compile takes it whole")


def test_what_looks_at_values_does_not_compile(compiled):
    assert compiled[f"{FILE}:LooksAtValues"].startswith("raised ")


def test_somebodys_sound_class_keeps_every_clause():
    assert [verdict for verdict in check(f"{FILE}:Sound", IN_PROCESS) if not verdict.ok] == []


@pytest.mark.parametrize(
    ("clause", "name", "says"),
    [
        ("shape_and_dtype", "OfFloat32", "expected .* torch.float64, saw .* torch.float32"),
        ("equals_reference", "ScaledAfterSoftmax", "output of forward against reference's: .* saw 0.5"),
        ("equals_reference", "WithoutNormaliser", "output of forward against reference's"),
        ("equals_reference", "WithoutGradientOfKeys", "gradient by the input of forward against reference's"),
        ("all_ids_mean_none", "Columnwise", "all ids against patches=None"),
        ("ids_belong_to_tokens", "IdsOfFirstImage", "image 1 with its ids"),
        ("ids_belong_to_tokens", "OrderOfIds", "order_free says True"),
        ("order_free_is_true", "SaysOrderFree", "says True, but"),
        ("order_free_is_true", "HidesThatOrderIsFree", "says False, but"),
        ("facts_are_true", "FactOfOrder", "says free_of_order = True, but"),
        ("facts_are_true", "FactOfLength", "says any_length = False, but"),
        ("facts_are_true", "HiddenRefusal", "says any_length = True, but"),
        ("facts_are_true", "FactOfGrid", "says needs_grid = True, but"),
        ("facts_are_true", "HiddenGrid", "says needs_grid = False, but"),
        ("facts_are_true", "WithoutPaper", "must say paper = "),
        ("reach_is_true", "ReachesLess", "part 'all' is wrong .* token 1 reaches output 0"),
        ("reach_is_true", "ReachesMore", "part 'all' is wrong .* token 1 does not reach output 0"),
        ("reach_is_true", "HiddenPart", "part 'moved' is wrong .* token 0 does not reach output 0"),
        ("reach_is_true", "ForgottenPart", "the sum of the parts"),
        ("images_do_not_mix", "LargestOfBatch", "image 0 in a batch, against alone"),
        ("flops_are_counted", "TooManyFlops", "flops says .*, torch counts"),
        ("flops_are_counted", "FlopsOfAllRows", "one row: flops says"),
        ("flops_are_counted", "FlopsOfWholeGridAlone", "expected at least the"),
        ("outputs_are_rows", "NextRows", r"outputs=slice\(0, 1, None\)"),
        ("softmax_at_its_limit", "WrongLimit", "with {}: against softmax"),
        ("finite_and_deterministic", "LoneTokenIsNan", "grid 1 x 1, .* output is not finite"),
        ("finite_and_deterministic", "Draws", "a second call in eval mode gives another output"),
        ("finite_and_deterministic", "RefusesWithoutReason", "must be a sentence that says why, saw 'no'"),
        ("bf16_is_near", "SumsInHalf", "bf16: output: expected within 2%"),
        ("saves_and_loads", "KeepsNoState", "the loaded state gives another output"),
        ("reset_is_complete", "ForgetsPosition", "position differs"),
        ("reset_is_complete", "ForgetsBuffer", "unused differs"),
        ("start_is_seeded", "DrawsFromTorch", "torch's global generator"),
        ("start_is_seeded", "OneStartForAllSeeds", "position asks for a generator, but"),
        ("start_is_seeded", "StartOfAnotherName", "asks for somewhere"),
        ("regrids", "StaysOnOldGrid", "raised RuntimeError"),
        ("regrids", "MovesOldGrid", "the old layer after regrid"),
        ("regrids", "TakesAnyPrefix", "must raise a ValueError"),
        ("recomputes", "CountsCalls", "calls differs after a checkpointed step"),
        ("regrids", "Raises", "raised KeyError: .somebody's own error"),
    ],
)
def test_a_clause_catches(clause, name, says):
    sentence = broken(name, clause)
    assert re.search(says, sentence), sentence


def test_every_clause_has_caught_something():
    mark = next(mark for mark in test_a_clause_catches.pytestmark if mark.name == "parametrize")
    assert {clause for clause, *_ in mark.args[1]} == set(IN_PROCESS)


def test_a_refused_default_is_checked_at_the_options_the_class_proposes():
    [verdict] = check("nystrom", ["equals_reference"])
    assert verdict.ok


def test_what_its_user_wrote_is_checked_as_written_or_not_at_all():
    with pytest.raises(ValueError, match=r"nystrom\(landmarks=500\) cannot be checked, it refuses every grid up to 12"):
        check("nystrom(landmarks=500)")


@pytest.mark.parametrize("attention", ["nystom", "nystrom(landmark=3)", "missing.module:Mine"])
def test_a_wrong_name_is_a_mistake_and_no_verdict(attention):
    with pytest.raises(ValueError, match=attention.split("(")[0]):
        check(attention)


def test_a_wrong_clause_is_a_mistake():
    with pytest.raises(ValueError, match="there is no clause shapes"):
        check("softmax", ["shapes"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TABLE)
def test_the_gate_lets_every_mechanism_through(name, dtype):
    gate(name, 48, 4, Tokens((14, 14), prefix=1), dtype=dtype)
    gate(name, 48, 4, Tokens((14, 14), prefix=1), 49, dtype)


@pytest.mark.parametrize("name", ["ScaledAfterSoftmax", "WithoutNormaliser", "WithoutGradientOfKeys"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gate_stops_what_computes_something_else(name, dtype):
    with pytest.raises(Broken, match=f"{name} on Tokens.* from the reference's"):
        gate(f"{FILE}:{name}", 48, 4, Tokens((7, 7), prefix=1), dtype=dtype)


def test_the_gate_refuses_what_the_model_would_refuse():
    with pytest.raises(ValueError, match="more would be softmax under another name"):
        gate("nystrom(landmarks=49)", 48, 4, Tokens((7, 7), prefix=1))
