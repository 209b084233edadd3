"""What memory is for, against a count by hand."""

import torch
from torch import nn

from saccade.measurement.memory.tally import Tally
from saccade.measurement.memory.tracked import track_training
from saccade.measurement.step import Step
from saccade.measurement.subject import Subject

SUBJECT = Subject(model="vit_nano_patch1_8")


class Two(nn.Module):
    """Two layers without biases, 64 -> 512 -> 1, and exp between them, which keeps what it puts out."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(64, 512, bias=False), nn.Linear(512, 1, bias=False)

    def forward(self, x):
        return self.narrow(self.wide(x).exp())


def tracked(batch, **terms):
    subject = Subject(model="vit_nano_patch1_8", **terms)
    return track_training(
        Two(), lambda model: Step(model, (torch.ones(batch, 64),), subject, lambda given: model(*given).mean())
    )


def test_parts_are_those_counted_by_hand():
    """1,000 rows: the values behind exp, their gradient, and that of the values before it, are there together."""
    memory, numbers = tracked(1000), 64 * 512 + 512
    wide = 4 * 1000 * 512
    assert memory.weights_bytes == 4 * numbers
    # Two moments, and a count for each of two tensors.
    assert memory.optimiser_bytes == 8 * numbers + 2 * 4
    assert memory.inputs_bytes == 4 * 1000 * 64
    assert memory.kept_by_module == {"Two": wide, "loss": 4}
    assert memory.kept_bytes == wide + 4
    assert memory.activations_bytes == 3 * wide + 8
    assert memory.gradients_bytes == 4 * 512


def test_a_large_model_s_peak_is_at_the_optimiser():
    memory, numbers = tracked(1), 64 * 512 + 512
    assert memory.gradients_bytes == memory.weights_bytes == 4 * numbers
    assert memory.activations_bytes < 4 * 2000


def test_in_bf16_masters_are_the_optimiser_s():
    memory, numbers = tracked(1, dtype="bf16"), 64 * 512 + 512
    assert memory.weights_bytes == 2 * numbers
    assert memory.optimiser_bytes == 12 * numbers + 2 * 4
    assert memory.gradients_bytes >= 4 * numbers


def test_what_is_freed_is_no_longer_there():
    with Tally() as tally:
        first = torch.ones(1000)
        del first
        second = torch.ones(500)
    assert [one.size for one in tally.there(tally.moment)] == [2000]
    assert tally.peak_bytes == 4000
    assert second is not None
