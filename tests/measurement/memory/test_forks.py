"""A fork says what it found, begins with what its parent has touched, and takes nobody with it when it dies."""

import os
import sys

import pytest

from saccade.measurement.memory import forks
from saccade.measurement.memory.forks import in_forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages are there")


def resident():
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))


def test_each_says_what_it_found_and_one_that_dies_counts_as_agreed():
    def dies():
        os._exit(3)

    def raises():
        raise SystemExit(4)

    found = [1]
    told = in_forks([lambda: (found.append(2) or len(found), 0), dies, raises, lambda: (len(found),)], otherwise=(7, 7))
    # What one has changed, the next one and this process do not see.
    assert told == [(2, 0), (7, 7), (7, 7), (1,)]
    assert found == [1]


def test_a_fork_begins_with_the_pages_of_its_parent():
    (there,) = in_forks([lambda: (resident(),)], otherwise=(0,))
    assert there[0] > 0.95 * resident()


def test_where_pages_cannot_be_read_everything_counts_as_agreed(monkeypatch):
    def closed():
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(forks, "_pages_of_files", closed)
    assert in_forks([lambda: (1, 2), lambda: (3, 4)], otherwise=(0, 0)) == [(0, 0), (0, 0)]
