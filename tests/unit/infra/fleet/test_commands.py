"""Which changes members may make to the record of a circuit, and which are ignored."""

from dataclasses import replace

import pytest

from example_service.infra.fleet.commands import (
    Acquire,
    Command,
    Fail,
    Move,
    Release,
    Restore,
    SetMode,
    Succeed,
    Vote,
    Withdraw,
)
from example_service.infra.fleet.record import Lease, Order, Record, record_from_json

NOW = 100_000
OPEN = Record(version=7, is_open=True, opened_at=NOW - 5000, until=NOW - 1, opener="a")


def vote(member: str = "b", opened_at: int = NOW - 100, quorum: int = 1) -> Vote:
    """The vote of a member whose wait ends in five seconds."""
    return Vote(member, opened_at, NOW + 5000, "5 failures in a row", 2, 60_000, quorum)


def lease(lease_id: str, member: str, limit: int = 1, threshold: int = 2) -> Acquire:
    """The request of a member whose probes may take two seconds."""
    return Acquire(lease_id, member, 2.0, limit, threshold)


def applied(command: Command, record: Record = OPEN, now: int = NOW) -> Record:
    """The record after a command that must change it."""
    changed = command.apply(record, now)
    assert changed is not None
    return changed


def test_a_vote_opens_a_closed_circuit() -> None:
    """The record keeps the opener's reason, the end of its wait and its backoff."""
    record = applied(vote(), Record())
    assert record.is_waiting(NOW)
    assert (record.opener, record.until, record.reopenings) == ("b", NOW + 5000, 2)
    assert record.reason == "5 failures in a row"


@pytest.mark.parametrize(
    ("command", "record"),
    [
        (replace(vote(), until=NOW), Record()),
        (vote(opened_at=NOW - 100), Record(closed_at=NOW - 100)),
        (vote(opened_at=NOW - 6000), OPEN),
        (vote(), replace(OPEN, until=NOW + 1)),
        (vote(), replace(OPEN, until=None)),
    ],
    ids=["expired", "before the close", "before the opening", "open already", "open for good"],
)
def test_a_vote_without_effect_is_ignored(command: Vote, record: Record) -> None:
    """It has expired, arrives too late, or the circuit is already open."""
    assert command.apply(record, NOW) is None


def test_a_new_vote_opens_a_half_open_circuit_again() -> None:
    """The circuit opens for all members, and all leases become void."""
    probing = replace(OPEN, leases={"x": Lease("c", NOW + 9)}, successes=1)
    record = applied(vote(), probing)
    assert record.is_waiting(NOW)
    assert (record.leases, record.successes) == ({}, 0)


def test_votes_below_the_quorum_open_nothing() -> None:
    """With a quorum of two, the second member opens the circuit; a member counts only once."""
    one = applied(vote("a", quorum=2), Record())
    assert not one.is_open
    assert vote("a", quorum=2).apply(one, NOW) is None
    assert applied(vote("b", quorum=2), one).is_open


def test_a_vote_counts_for_the_recovery_timeout() -> None:
    """After that, a vote no longer counts towards the quorum."""
    one = applied(vote("a", quorum=2), Record())
    late = NOW + 60_000
    second = replace(vote("b", quorum=2), opened_at=late, until=late + 5000)
    assert not applied(second, one, late).is_open


def test_a_vote_can_be_withdrawn() -> None:
    """A member withdraws its vote when it has recovered on its own."""
    one = applied(vote("a", quorum=2), Record())
    assert applied(Withdraw("a"), one).votes == {}
    assert Withdraw("b").apply(one, NOW) is None


def test_leases_are_limited() -> None:
    """The limit applies to the whole fleet, and an expired lease makes room for another."""
    one = applied(lease("x", "a"))
    assert one.leases == {"x": Lease("a", NOW + 3000)}
    assert lease("y", "b").apply(one, NOW) is None
    assert set(applied(lease("y", "b"), one, NOW + 3000).leases) == {"y"}


def test_there_are_no_more_leases_than_missing_successes() -> None:
    """A third probe could not change anything when two successes close the circuit."""
    two = applied(lease("y", "b", 3), applied(lease("x", "a", 3)))
    assert lease("z", "c", 3).apply(two, NOW) is None
    one_succeeded = applied(Succeed("x", "a", 2), two)
    assert lease("z", "c", 3).apply(one_succeeded, NOW) is None


@pytest.mark.parametrize("later", [0, 3000], ids=["released", "expired"])
def test_a_lease_without_an_outcome_is_granted_again(later: int) -> None:
    """Whether its probe was neutral or its process died, another probe takes its place."""
    two = applied(lease("y", "b", 3), applied(lease("x", "a", 3)), NOW + later)
    one = two if later else applied(Release("x"), two)
    three = applied(lease("z", "c", 3), one, NOW + later)
    assert set(three.leases) == {"y", "z"}


def test_a_process_with_a_lower_threshold_gets_a_lease() -> None:
    """Two versions of a service may run side by side, and the one that counted may have ended."""
    record = replace(OPEN, successes=3)
    last = applied(lease("x", "a", 3, threshold=2), record)
    assert lease("y", "b", 3, threshold=2).apply(last, NOW) is None
    assert not applied(Succeed("x", "a", 2), last).is_open


@pytest.mark.parametrize("record", [Record(), replace(OPEN, until=NOW + 1)])
def test_there_is_no_lease_before_the_wait_is_over(record: Record) -> None:
    """There is none for a closed circuit either."""
    assert lease("x", "a").apply(record, NOW) is None


def test_enough_successes_close_the_circuit() -> None:
    """Successes of all members count, and a mode that is set stays in effect."""
    order = Order("o", "shadow", "trying", None)
    leases = {"x": Lease("a", NOW + 9), "y": Lease("b", NOW + 9)}
    one = applied(Succeed("x", "a", 2), replace(OPEN, leases=leases, order=order))
    assert one.is_half_open(NOW)
    two = applied(Succeed("y", "b", 2), one)
    assert not two.is_open
    assert (two.closed_at, two.order) == (NOW, order)


def test_a_failure_opens_the_circuit_for_longer() -> None:
    """It opens for all members, and every other lease becomes void."""
    leases = {"x": Lease("a", NOW + 9), "y": Lease("b", NOW + 9)}
    failure = Fail("x", "a", NOW, NOW + 8000, "a probe failed")
    record = applied(failure, replace(OPEN, leases=leases))
    assert (record.until, record.reopenings, record.leases) == (NOW + 8000, 1, {})


@pytest.mark.parametrize(
    "command",
    [Succeed("x", "a", 1), Fail("x", "a", NOW, NOW + 8000, "a probe failed")],
    ids=["success", "failure"],
)
@pytest.mark.parametrize("leases", [{}, {"x": Lease("a", NOW)}], ids=["unknown", "expired"])
def test_an_outcome_without_a_valid_lease_changes_nothing(
    command: Command, leases: dict[str, Lease]
) -> None:
    """It may come from a probe that hung until another one took its place."""
    assert command.apply(replace(OPEN, leases=leases), NOW) is None


def test_a_lease_can_be_given_back() -> None:
    """This makes room for another lease."""
    record = applied(Release("x"), replace(OPEN, leases={"x": Lease("a", NOW + 9)}))
    assert record.leases == {}
    assert Release("x").apply(record, NOW) is None


def test_a_reset_closes_the_circuit_and_ends_the_mode() -> None:
    """Votes from before the reset come too late."""
    record = applied(SetMode("o", None, "reset", None, opens=False, member="a"))
    assert not record.is_open
    assert record.mode(NOW) is None
    assert vote(opened_at=NOW).apply(record, NOW + 1) is None


def test_a_circuit_is_half_open_when_its_forced_open_mode_ends() -> None:
    """After maintenance, the whole fleet shares the limit of probes."""
    record = applied(SetMode("o", "forced_open", "maintenance", 9.0, opens=True, member="a"))
    assert lease("x", "a").apply(record, NOW + 8999) is None
    assert record.mode(NOW + 8999) is not None
    assert record.mode(NOW + 9000) is None
    assert applied(lease("x", "a"), record, NOW + 9000).leases


def test_a_forgotten_record_is_restored() -> None:
    """It is not restored if the store has a newer one, or if it no longer has any effect."""
    assert applied(Restore(OPEN), Record()).is_open
    assert Restore(OPEN).apply(replace(OPEN, version=8), NOW) is None
    assert Restore(OPEN).apply(Record(version=3, is_open=True), NOW) is None
    assert Restore(Record(version=7, closed_at=NOW)).apply(Record(), NOW) is None


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        (Record(closed_at=NOW), 60),
        (replace(OPEN, until=NOW + 5000), 3605),
        (replace(OPEN, until=None), 365 * 86400),
        (Record(order=Order("o", "disabled", "x", NOW + 90_000)), 90),
        (Record(order=Order("o", "disabled", "x", None)), 365 * 86400),
        (Record(votes={"a": NOW + 70_000}), 70),
    ],
)
def test_every_record_expires(record: Record, seconds: int) -> None:
    """It expires only after everything in it has lost its effect."""
    assert record.expires_in(NOW) == seconds * 1000


@pytest.mark.parametrize(
    ("record", "must_exist"),
    [
        (Record(closed_at=NOW), False),
        (Record(votes={"a": NOW + 1}), False),
        (replace(OPEN, until=NOW - 3_600_000), False),
        (replace(OPEN, until=NOW - 3_599_999), True),
        (replace(OPEN, until=None), True),
        (Record(order=Order("o", "disabled", "x", NOW)), False),
        (Record(order=Order("o", "disabled", "x", NOW + 1)), True),
        (Record(order=Order("o", "disabled", "x", None)), True),
    ],
)
def test_a_record_that_still_counts_must_exist(record: Record, must_exist: bool) -> None:
    """If a store does not have it, the store has lost it."""
    assert record.must_exist(NOW) is must_exist


def test_a_record_is_moved_once_when_the_clock_is_set_back() -> None:
    """All members notice that; the second one finds a record that was written since."""
    before = replace(OPEN, version=3)
    move = Move(before.moved(-1000))
    assert move.apply(before, NOW) == before.moved(-1000)
    assert move.apply(before.with_version(4), NOW) is None


def test_a_record_keeps_its_durations_on_another_clock() -> None:
    """Every time in it is shifted by the same amount."""
    order = Order("o", "disabled", "x", NOW + 5)
    record = replace(OPEN, leases={"x": Lease("a", NOW + 9)}, votes={"b": NOW + 3}, order=order)
    moved = record.moved(1000)
    assert moved.until == (record.until or 0) + 1000
    assert moved.leases["x"].deadline == NOW + 1009
    assert moved.votes["b"] == NOW + 1003
    assert moved.order is not None
    assert moved.order.until == NOW + 1005
    assert moved.moved(-1000) == record


def test_fields_of_a_later_version_are_ignored() -> None:
    """During an update, both versions of a service are one circuit."""
    record = record_from_json(7, '{"is_open":true,"until":5,"weather":"fine"}')
    assert record == Record(version=7, is_open=True, until=5)

    text = '{"leases":{"x":["a",9,"why"]},"order":["id","disabled","",null,"who"]}'
    longer = record_from_json(8, text)
    assert longer.leases == {"x": Lease("a", 9)}
    assert longer.order == Order("id", "disabled", "", None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "1", "{"),
        '{"leases":{"x":[1]}}',
        '{"leases":{"x":["a","soon"]}}',
        '{"until":"soon"}',
        '{"order":["id","disabled"]}',
    ],
)
def test_an_invalid_record_is_refused(text: str) -> None:
    """Otherwise it would fail later, in the middle of a change."""
    with pytest.raises(ValueError, match=r".+"):
        record_from_json(1, text)
