"""A tally counts what is made, from when it has memory until it is freed, and says when most was there."""

import torch

from saccade.measurement.memory.tally import Tally

BYTES = 4000


def made():
    return torch.ones(1000)


def test_the_most_there_was_at_a_time_is_remembered_with_its_moment():
    with Tally() as tally:
        one, other = made(), made()
        del one
        third = made()
    assert (tally.peak_bytes, tally.needed_bytes) == (2 * BYTES, 2 * BYTES)
    assert len(tally.stored) == 3
    assert tally.there(tally.needed_moment) == tally.stored[:2]
    assert tally.there(tally.moment) == tally.stored[1:]
    del other, third
    assert tally.there(tally.moment) == []


def test_what_was_there_is_not_counted_nor_is_a_view():
    given = made()
    with Tally([given]) as tally:
        given.reshape(10, 100).mul_(2)
    assert (tally.peak_bytes, tally.needed_bytes, tally.stored) == (0, 0, [])


def test_pages_are_taken_as_they_are_written():
    with Tally() as tally:
        empty = torch.empty(1000)
        assert (tally.peak_bytes, tally.needed_bytes) == (BYTES, 0)
        empty[:250].zero_()
        assert tally.needed_bytes == BYTES / 4
        empty[:500].zero_()
        assert tally.needed_bytes == BYTES * 3 / 4, "which part is written again is not known"
        empty.zero_()
        assert tally.needed_bytes == BYTES
        empty.zero_()
        del empty
        whole = made()
    assert (tally.peak_bytes, tally.needed_bytes) == (BYTES, BYTES)
    del whole


def test_what_is_forgotten_was_never_there():
    with Tally() as tally:
        kept, unused = made(), torch.ones(2, 1000)
        tally.forget([unused])
        assert (tally.peak_bytes, tally.needed_bytes) == (BYTES, BYTES)
        more = made()
        del unused
    assert (tally.peak_bytes, tally.needed_bytes) == (2 * BYTES, 2 * BYTES)
    assert [one.size for one in tally.stored] == [BYTES, BYTES]
    del kept, more


def test_what_operations_take_within_themselves_is_needed_but_no_tensor():
    with Tally(within=lambda func, args, made: 100 if func is torch.ops.aten.exp.default else 0) as tally:
        made().exp()
    assert (tally.peak_bytes, tally.needed_bytes) == (2 * BYTES, 2 * BYTES + 100)


def test_whole_pages_are_needed_where_they_are_said():
    with Tally(held=lambda size: -(-size // 4096) * 4096) as tally:
        one = made()
    assert (tally.peak_bytes, tally.needed_bytes) == (BYTES, 4096)
    del one


def test_storages_bear_the_name_of_where_they_were_made_and_of_what_they_are():
    with Tally(scope_of=iter(["here", "there"]).__next__) as tally:
        tally.part = "optimiser"
        one = made()
        tally.part = None
        other = made()
        tally.name([other, None], "weights")
    assert [(stored.scope, stored.part) for stored in tally.stored] == [("here", "optimiser"), ("there", "weights")]
    del one, other
