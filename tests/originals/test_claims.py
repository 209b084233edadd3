"""Every fault of the originals is found: in their own claims by a rule of the doctor, in their code by the contract."""

import pytest
import torch

from saccade.attention import Tokens
from saccade.attention.contract import CLAUSES, check
from saccade.attention.lambda_layer import Lambda
from saccade.originals import ORIGINALS, find_original
from saccade.originals.reproduction import faults_found
from saccade.originals.scaled_after import ScaledAfter
from saccade.originals.strip_lambda import StripLambda, taps_with_data
from saccade.record import read_record
from saccade.reports.fairness import examine

# torch.compile cannot look through the tests' shape checks.
IN_PROCESS = [clause for clause in CLAUSES if clause != "compiles"]

# What is known to have been wrong with each, and what finds it.
KNOWN = [
    ("000", "64 landmarks for 13", "doctor: degenerate"),
    ("000", "padded 13 tokens to 50", "doctor: padded tokens"),
    ("000", "reversible blocks, the baseline without", "doctor: a second thing changed"),
    ("000", "arrived in random order", "doctor: shuffled tokens"),
    ("000", "0.2 % and 1.6 %", "doctor: what a swap can gain"),
    ("001", "9 of its 81 taps", "contract: reach_is_true, facts_are_true, equals_reference"),
    ("001", "random order", "doctor: shuffled tokens"),
    ("001", "one training step", "doctor: one step"),
    ("001", "typing error", "doctor: crash counted as no fit"),
    ("001", "never fell below 1", "doctor: nothing reconstructed"),
    ("002", "lost in a recursion", "doctor: kernel not run"),
    ("002", "launch of kernels", "doctor: launch-bound"),
    ("002", "shared one process", "doctor: shared process"),
    ("002", "before it synchronised", "doctor: clock read too early"),
    ("003", "after the softmax", "contract: equals_reference, softmax_at_its_limit"),
    ("003", "calls a method that tensors do not have", "contract: shape_and_dtype"),
    ("004", "changes together with the attention", "doctor: a second thing changed"),
    ("004", "One run each", "doctor: seeds"),
]


@pytest.fixture(scope="module")
def all_found():
    """Of each original, once."""
    found = {}
    for name in ORIGINALS:
        one = find_original(name)
        clauses = dict.fromkeys(clause for fault in one.faults for clause in fault.clauses)
        found[name] = faults_found(one, examine(one.claims()), clauses)
    return found


@pytest.mark.parametrize(("name", "fault", "by"), KNOWN, ids=[f"{name}: {fault}" for name, fault, _ in KNOWN])
def test_every_fault_is_found_by_name(all_found, name, fault, by):
    [one] = [one for one in all_found[name] if fault in one.fault.what]
    assert one.by == by
    assert len(one.seen) > 20


def test_no_fault_is_known_that_is_not_listed_here(all_found):
    assert sum(map(len, all_found.values())) == len(KNOWN)


@pytest.mark.parametrize("name", ORIGINALS)
def test_claims_are_records_that_can_be_written_and_read(name):
    claims = find_original(name).claims()
    assert [read_record(record.line()) for record in claims] == claims


def test_the_scale_behind_the_softmax_breaks_what_is_wrong_and_nothing_else():
    broken = [one.clause for one in check("saccade.originals.scaled_after:ScaledAfter", IN_PROCESS) if not one.ok]
    # The last one holds the layer on another grid against its reference.
    assert broken == ["equals_reference", "softmax_at_its_limit", "regrids"]


def test_the_missing_method_is_named():
    [verdict] = check("saccade.originals.scaled_after:ScaledAfter(masked=True)", ["shape_and_dtype"])
    assert "'Tensor' object has no attribute 'mask_fill'" in verdict.sentence


def test_it_is_the_formula_that_was_printed():
    """Written out from the original's text: softmax(energy) / √768, with 8 heads."""
    layer = ScaledAfter(768, 8, Tokens((2, 2)))
    q, k, v = torch.randn(3, 1, 8, 4, 96, generator=torch.Generator().manual_seed(0)).unbind()
    expected = (q @ k.transpose(2, 3)).softmax(-1) / 768**0.5 @ v
    torch.testing.assert_close(layer.mix(q, k, v, None), expected)


def test_the_strip_breaks_what_is_wrong_and_nothing_else():
    broken = [one.clause for one in check("saccade.originals.strip_lambda:StripLambda", IN_PROCESS) if not one.ok]
    assert broken == ["equals_reference", "facts_are_true", "reach_is_true", "regrids"]


@pytest.mark.parametrize(("cls", "taps"), [(StripLambda, 9), (Lambda, 81)])
def test_on_the_strip_one_row_of_the_kernel_sees_data(cls, taps):
    assert taps_with_data(cls(16, 2, Tokens((10, 10), prefix=1))) == (taps, 81)


def test_the_strip_is_a_lambda_layer_where_the_grid_is_one():
    """A strip that is the whole image, without a class token: there the two are the same."""
    torch.manual_seed(0)
    layer = StripLambda(16, 2, Tokens((1, 12)))
    x = torch.randn(2, 12, 16)
    layer.eval()
    torch.testing.assert_close(layer(x), layer.layer_on_grid(x))
    torch.testing.assert_close(layer(x), layer.reference(x))
