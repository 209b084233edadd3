from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from saccade.training.checked import Within, check_fields, from_plain, setting_names, to_plain


@dataclass(frozen=True)
class Inner:
    count: Annotated[int, Within(1)] = 3
    rate: Annotated[float, Within(0, 1, above=True)] = 0.5
    betas: Annotated[tuple[float, float], Within(0, 0.9)] = (0.1, 0.2)
    kind: Literal["a", "b"] = "a"
    most: Annotated[int, Within(1)] | None = None
    on: bool = False
    name: str = "x"


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    free: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_fields(self, "")


def test_what_is_written_is_read_back():
    outer = Outer(Inner(count=4, betas=(0.3, 0.4), most=2, kind="b"), {"depth": 6, "img_size": (8, 4)})
    assert from_plain(Outer, to_plain(outer)) == outer


def test_what_is_not_given_keeps_its_default():
    assert from_plain(Outer, {"inner": {"rate": 1}}) == Outer(Inner(rate=1.0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": 0}, "inner.count = 0: must be at least 1"),
        ({"count": 1.0}, "inner.count = 1.0: must be a whole number"),
        ({"count": True}, "inner.count = True: must be a whole number"),
        ({"rate": 0}, "inner.rate = 0.0: must be above 0 and at most 1"),
        ({"rate": float("nan")}, "inner.rate = nan: must be above 0 and at most 1"),
        ({"rate": "1e-3"}, "inner.rate = '1e-3': must be a number"),
        ({"betas": [0.1]}, r"inner.betas = \[0.1\]: must be a list of 2 values"),
        ({"betas": [0.1, 0.95]}, r"inner.betas = \(0.1, 0.95\): must be at least 0 and at most 0.9"),
        ({"kind": "c"}, "inner.kind = 'c': must be 'a' or 'b'"),
        ({"most": 0}, "inner.most = 0: must be at least 1"),
        ({"on": 1}, "inner.on = 1: must be true or false"),
        ({"name": 3}, "inner.name = 3: must be text"),
        (7, "inner = 7: must be a table"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(given, said):
    with pytest.raises(ValueError, match=said):
        from_plain(Outer, {"inner": given})


def test_an_infinite_number_is_out_of_every_range():
    @dataclass(frozen=True)
    class Open:
        rate: Annotated[float, Within(0)] = 1.0

    with pytest.raises(ValueError, match="must be at least 0"):
        from_plain(Open, {"rate": float("inf")})


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"no setting 'inner.cuont': did you mean inner.count\? known are inner.count, "
    ):
        from_plain(Outer, {"inner": {"cuont": 1}})


def test_names_of_settings_are_dotted():
    assert list(setting_names(Outer))[:2] == ["inner.count", "inner.rate"]
    assert list(setting_names(Outer))[-1] == "free"
