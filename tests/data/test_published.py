"""Changed copies of published data sets are told from the originals."""

import pytest

from saccade.data.digits import find_digits
from saccade.data.published import FASHION_CLASSES, change, known_by_classes

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_published_sets_are_known_by_their_classes():
    assert known_by_classes(TEN).title == "CIFAR-10"
    assert known_by_classes(FASHION_CLASSES).title == "Fashion-MNIST"
    assert known_by_classes(TEN[:9]) is None
    assert known_by_classes(find_digits().classes) is None


@pytest.mark.parametrize(
    ("formats", "images", "said"),
    [
        ({"PNG": 60_000}, 60_000, None),
        ({"pixels": 60_000}, 60_000, None),
        ({"JPEG": 60_000}, 60_000, "a copy compressed anew"),
        ({"PNG": 59_999, "JPEG": 1}, 60_000, "1 pictures of CIFAR-10 are JPEG"),
        ({"PNG": 5_000}, 5_000, "5,000 pictures with the classes of CIFAR-10, which has 60,000"),
    ],
    ids=str,
)
def test_a_copy_is_known_by_its_format_and_its_size(formats, images, said):
    found = change(known_by_classes(TEN), formats, images)
    assert found is None if said is None else said in found
