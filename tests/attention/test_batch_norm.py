"""BatchNorm of tokens against torch's, and its two rules: float32 statistics, counted once."""

import copy

import pytest
import torch
from tests.attention.agreement import enliven, images, slopes
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from saccade.attention.batch_norm import BatchNorm


def made(width=6):
    norm = BatchNorm(width)
    enliven(norm)
    return norm.double()


def torchs(norm):
    theirs = torch.nn.BatchNorm1d(len(norm.weight)).double()
    theirs.load_state_dict(norm.state_dict(), strict=False)
    return theirs


def test_it_is_torchs_in_training_and_after():
    norm = made()
    theirs = torchs(norm)
    for training in (True, True, False):
        norm.train(training), theirs.train(training)
        x = images(3, 5, 6).requires_grad_()
        y, expected = norm(x), theirs(x.flatten(0, 1)).view_as(x)
        assert_close(y, expected)
        assert_close(slopes(y, [x, *norm.parameters()]), slopes(expected, [x, *theirs.parameters()]))
        assert_close(norm.running_mean, theirs.running_mean)
        assert_close(norm.running_var, theirs.running_var)


def test_its_reference_is_the_same_and_moves_nothing():
    norm, x = made(), images(3, 5, 6)
    for training in (True, False):
        norm.train(training)
        before = copy.deepcopy(norm.state_dict())
        expected = norm.reference(x)
        assert_close(norm.state_dict(), before)
        assert_close(norm(x), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_counts_a_batch_once(reentrant):
    plain = made()
    again, x = copy.deepcopy(plain), images(3, 5, 6).requires_grad_()
    plain(x).sum().backward()
    checkpoint(again, x, use_reentrant=reentrant).sum().backward()
    assert_close(again.state_dict(), plain.state_dict())
    again(x)
    assert not torch.equal(again.running_mean, plain.running_mean)


def test_statistics_stay_in_float32_when_the_model_becomes_bf16():
    norm = made().float()
    norm(images(3, 5, 6).float())
    mean = norm.running_mean.clone()
    norm = norm.bfloat16()
    assert norm.weight.dtype == torch.bfloat16
    assert torch.equal(norm.running_mean, mean)
    assert norm(images(3, 5, 6).bfloat16()).dtype == torch.bfloat16
    assert norm.running_var.dtype == torch.float32


def test_it_is_emptied_and_reset():
    with torch.device("meta"):
        norm = BatchNorm(6).bfloat16()
    norm.to_empty(device="cpu").reset_parameters()
    assert norm.running_var.dtype == torch.float32
    assert_close(norm.state_dict(), {**BatchNorm(6).bfloat16().state_dict()})


def test_one_token_has_no_deviation():
    norm = made()
    with pytest.raises(ValueError, match="at least 2 tokens in a batch"):
        norm(images(1, 1, 6))
    assert norm(images(1, 2, 6)).isfinite().all()
    assert norm.eval()(images(1, 1, 6)).isfinite().all()
