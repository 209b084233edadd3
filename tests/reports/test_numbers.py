from saccade.reports.numbers import counted, duration, interval, signed, spread, times
from saccade.reports.ratios import Ratio
from saccade.reports.statistics import Difference


def test_numbers_read_as_people_write_them():
    assert [signed(value) for value in (-0.93, 0.44)] == ["−0.9", "+0.4"]
    ratios = (0.00647, 0.06, 0.0999, 0.812, 1.0, 12.34, 0)
    assert [times(value) for value in ratios] == ["0.0065", "0.060", "0.10", "0.81", "1.00", "12.3", "0.00"]
    assert [counted(value) for value in (28_298, 4e6, 400, 86_567_656)] == ["28.3 k", "4.00 M", "400", "86.6 M"]
    assert [counted(value, "B") for value in (40e6, 999_949, 999_400, 999_600_000)] == [
        "40.0 MB",
        "1.00 MB",
        "999 kB",
        "1.00 GB",
    ]
    assert [duration(value) for value in (0.0000123, 0.0123, 12.5, 75.0, 1200.0, 9000.0)] == [
        "12.3 µs",
        "12.3 ms",
        "12.5 s",
        "75.0 s",
        "20.0 min",
        "2.50 h",
    ]


def test_what_has_no_interval_shows_none():
    assert interval(Difference(1.0)) == spread(Ratio(1.0)) == spread(Ratio(1.0, 1.0, 1.0)) == ""
    assert interval(Difference(1.0, -1.0, 2.0)) == "−1.0 … +2.0"
    assert spread(Ratio(1.0, 0.9, 1.1)) == "0.90–1.10"
