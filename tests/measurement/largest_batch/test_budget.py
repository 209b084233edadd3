"""A budget is what its user wrote, to the byte, or what is there; what cannot be meant is refused."""

import pytest

from saccade.measurement.largest_batch import budget
from saccade.measurement.largest_batch.budget import budget_of, bytes_of
from saccade.measurement.largest_batch.gpus import GPUS, gpu_named
from saccade.measurement.memory.baseline import Baselines


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("24GiB", 24 * 2**30), ("1.5 GB", 1.5e9), ("500mb", 5e8), ("512MiB", 2**29)],
)
def test_units_are_those_of_ten_and_of_two(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["24", "24 gigs", "0GB", "-1GB", "GB", "", "1e9", "24GBs", "1.GB"])
def test_an_amount_without_a_unit_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"as in 24GB; units are MB \(1,000,000 bytes\), MiB .*, GB .*, GiB"):
        bytes_of(text)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"memory": "1GB", "for_gpu": "t4"}, "give one of the two"),
        ({"for_gpu": "a100"}, "did you mean a100-40gb or a100-80gb"),
        ({"for_gpu": "RTX 4009"}, r"did you mean rtx-4090.*known are a10, "),
        ({"memory": "1GB", "device": "mps"}, "use cpu or cuda"),
        ({"memory": "1GB", "margin": 1.0}, "from 0 to below 1"),
        ({"memory": "1GB", "margin": -0.1}, "from 0 to below 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, says):
    with pytest.raises(ValueError, match=says):
        budget_of(**{"memory": None, "for_gpu": None, "device": "cpu", **asked})


def test_without_an_amount_it_is_what_is_free(monkeypatch):
    monkeypatch.setattr(budget, "free_bytes", lambda device: 7 * 10**9)
    assert budget_of(None, None, "cpu").total_bytes == 7 * 10**9
    # Only a process on a GPU can tell what it could have there.
    assert budget_of(None, None, "cuda:0").total_bytes is None
    monkeypatch.setattr(budget, "free_bytes", lambda device: None)
    with pytest.raises(ValueError, match="--memory 24GB"):
        budget_of(None, None, "cpu")


def test_a_model_has_what_a_process_without_one_and_the_margin_leave():
    stays = Baselines(3 * 10**8, 2 * 10**8)
    weighed = budget_of("2GB", None, "cpu", margin=0.25).weighed(stays)
    assert weighed.allowed_bytes == 1.5e9
    assert weighed.taken == stays
    assert [stays.of(training) for training in (True, False)] == [3e8, 2e8]
    with pytest.raises(ValueError, match=r"0.20 GB of memory: 0.20 GB are taken before there is any model"):
        budget_of("200MB", None, "cpu").weighed(stays)


def test_of_a_gpu_that_is_not_there_context_and_workspace_are_taken():
    weighed = budget_of(None, "A100 40GB", "cpu").weighed(None)
    assert weighed.device == "cuda"
    assert 39e9 < weighed.allowed_bytes - weighed.taken.training < 42e9
    assert weighed.taken.training == weighed.taken.inference
    # Hopper's workspace is the larger one.
    assert gpu_named("h100-80gb").reserve_bytes - gpu_named("a100-80gb").reserve_bytes == 2 * (
        32 * 2**20 - 8320 * 2**10
    )


def test_every_gpu_has_less_than_is_sold_and_says_where_that_was_seen():
    for name, gpu in GPUS.items():
        assert gpu.name == name
        assert gpu.source
        assert gpu.verified == "unverified" or gpu.error_share is not None
        sold = [int("".join(filter(str.isdigit, word))) for word in name.split("-") if word.endswith("gb")]
        assert all(0.9 * size * 2**30 < gpu.total_bytes < size * 2**30 for size in sold)


def test_only_what_is_here_can_be_tried(monkeypatch):
    monkeypatch.setattr(budget, "free_bytes", lambda device: 10**9)
    budget_of("1GB", None, "cpu").require_here()
    with pytest.raises(ValueError, match=r"1.00 GB are free here"):
        budget_of("2GB", None, "cpu").require_here()
    with pytest.raises(ValueError, match="only what is there can be tried"):
        budget_of(None, "t4", "cpu").require_here()
