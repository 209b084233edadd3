"""Terms name every condition and refuse what contradicts itself; a subject's are what it was given."""

import pytest
import torch

from saccade.measurement.subject import Subject
from saccade.measurement.terms import Terms, require_positive

GIVEN = {"batch_size": 3, "dtype": "bf16", "device": "cpu", "threads": 2, "clock": "cpu", "allocator": "keep"}


def test_a_subjects_terms_are_those_it_was_given():
    subject = Subject(model="vit_nano_patch1_8", **GIVEN)
    assert subject.terms == Terms(**GIVEN)
    assert subject.conditions() == Terms(**GIVEN).conditions()


@pytest.mark.parametrize(
    ("terms", "dtype"),
    [({}, torch.float32), ({"dtype": "bf16"}, torch.bfloat16), ({"amp_dtype": "bf16"}, torch.bfloat16)],
)
def test_an_attention_mixes_in_the_dtype_of_autocast_or_of_the_weights(terms, dtype):
    assert Terms(**terms).mixing_dtype == dtype


def test_a_number_below_one_is_named():
    require_positive(dim=1, heads=2)
    with pytest.raises(ValueError, match="heads=0: must be at least 1"):
        require_positive(dim=1, heads=0)
