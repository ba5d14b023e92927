"""What each set of parameters would have done with recorded calls, counted by hand."""

from collections.abc import Iterator
from dataclasses import replace as changed

import pytest

from example_service.replay.calls import FAILURE, NEITHER, SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.simulation import MOST_OPENINGS, Outcome, replay
from example_service.replay.timeline import MOST_SPANS


def outage(begin: int = 10, end: int = 20, until: int = 40) -> Iterator[Call]:
    """A call a second that takes a tenth of one, failing for a while."""
    for second in range(until):
        yield Call(second, 0.1, FAILURE if begin <= second < end else SUCCESS)


def outcome_of(text: str, calls: Iterator[Call] | list[Call]) -> Outcome:
    """What one set would have done."""
    return replay(calls, [ParameterSet.parse(text)]).outcomes[0]


def test_an_outage_is_spared_from_the_threshold_to_its_end() -> None:
    """Three failures open, probes find out each five seconds, and two successes close."""
    outcome = outcome_of("failure_threshold=3 recovery_timeout=5 backoff.multiplier=1", outage())

    # Opened by the end of the call at 12; probes at 18 (failed) and 24, 25 (succeeded).
    [opening] = outcome.openings
    assert (opening.why, opening.spared, opening.healthy_refused) == ("3 failures in a row", 6, 4)
    moments = (opening.opened_at, opening.closed_at, opening.recovery_seconds)
    assert moments == pytest.approx((12.1, 25.1, 25.1 - 19.1))
    assert (outcome.opened, outcome.refused, outcome.spared) == (1, 10, 6)
    assert (outcome.failing, outcome.healthy, outcome.healthy_refused) == (10, 30, 4)
    assert outcome.seconds_spared == pytest.approx(0.6)


def test_sets_do_not_influence_one_another() -> None:
    """Each set of several has the outcome that it has alone."""
    texts = ["failure_threshold=3", "failure_threshold=100", "failure_threshold=1"]
    sets = [ParameterSet.parse(text) for text in texts]

    assert replay(outage(), sets).outcomes == [outcome_of(text, outage()) for text in texts]


def test_a_hanging_call_opens_at_its_deadline() -> None:
    """With `slow_call_duration` a call counts while it still hangs, whoever gives it up."""
    calls = [Call(0.0, 30.0, NEITHER), *[Call(second, 0.1, SUCCESS) for second in range(1, 8)]]
    outcome = outcome_of("failure_threshold=1 slow_call_duration=2.5 recovery_timeout=60", calls)

    [opening] = outcome.openings
    assert opening.opened_at == pytest.approx(2.5)
    assert (outcome.failing, outcome.healthy, outcome.healthy_refused) == (1, 7, 5)
    assert opening.closed_at is None


def test_an_earlier_slow_call_does_not_move_a_later_opening() -> None:
    """A call past its deadline that opens nothing leaves the moment of the opening alone."""
    calls = [
        Call(0.0, 3.0, SUCCESS),
        Call(4.0, 0.1, SUCCESS),
        *[Call(second, 0.1, FAILURE) for second in (10, 11)],
    ]
    outcome = outcome_of("failure_threshold=2 slow_call_duration=1", calls)

    assert [opening.opened_at for opening in outcome.openings] == [pytest.approx(11.1)]


def test_a_probe_that_hangs_opens_again_at_its_deadline() -> None:
    """Time that passes without a call acts in its order, however long it is."""
    calls = [
        Call(0.0, 0.1, FAILURE),
        Call(5.2, 100.0, NEITHER),
        Call(50.0, 0.1, SUCCESS),
        Call(51.0, 0.1, SUCCESS),
    ]
    outcome = outcome_of(
        "failure_threshold=1 recovery_timeout=5 probe_timeout=2 backoff.multiplier=1", calls
    )

    assert outcome.opened == 1
    assert outcome.openings[0].closed_at == pytest.approx(51.1)
    assert outcome.refused == 0


def test_calls_that_are_neither_change_nothing() -> None:
    """They are no failing calls, no healthy ones, and open nothing."""
    outcome = outcome_of("failure_threshold=1", [Call(s, 0.1, NEITHER) for s in range(5)])

    assert (outcome.failing, outcome.healthy, outcome.opened) == (0, 0, 0)


def test_slow_calls_can_be_counted_as_failing_for_every_set() -> None:
    """To compare sets, one number of seconds decides for all of them what is failing."""
    calls = [Call(second, 0.1 + second % 2, SUCCESS) for second in range(10)]
    sets = [ParameterSet.parse("a:"), ParameterSet.parse("b: slow_call_duration=0.5")]

    own = [(one.failing, one.healthy) for one in replay(calls, sets).outcomes]
    shared = [(one.failing, one.healthy) for one in replay(calls, sets, 0.5).outcomes]
    assert own == [(0, 10), (5, 5)]
    assert shared == [(5, 5), (5, 5)]


def test_no_recovery_without_a_failing_call() -> None:
    """A circuit that slow probes opened has nothing to recover from, if none is failing."""
    calls = [Call(0.0, 3.0, NEITHER), *[Call(s, 0.1, SUCCESS) for s in range(10, 20)]]
    outcome = replay(
        calls,
        [ParameterSet.parse("failure_threshold=1 slow_call_duration=1 recovery_timeout=2")],
        slow_seconds=60.0,
    ).outcomes[0]

    assert [opening.recovery_seconds for opening in outcome.openings] == [None]


def test_memory_does_not_grow_with_the_recording() -> None:
    """Openings beyond a number are only counted, and spans of time become longer."""
    calls = (Call(10.0 * n, 0.1, FAILURE if n % 3 == 0 else SUCCESS) for n in range(6_000))
    text = "failure_threshold=1 success_threshold=1 recovery_timeout=5"
    result = replay(calls, [ParameterSet.parse(text)])

    [outcome] = result.outcomes
    assert outcome.opened == 2_000
    assert len(outcome.openings) == MOST_OPENINGS
    timeline = result.timeline
    assert len(timeline.calls) == len(timeline.failures) == len(timeline.bands[0]) <= MOST_SPANS
    assert (sum(timeline.calls), sum(timeline.failures)) == (6_000, 2_000)


def test_the_band_of_a_set_shows_when_it_was_open() -> None:
    """The worst state of each span: closed, then open, half-open while probing, then closed."""
    result = replay(outage(), [ParameterSet.parse("failure_threshold=3 recovery_timeout=10")])
    timeline = result.timeline
    spans = round(1 / timeline.span_seconds)
    band = timeline.bands[0]
    seconds = [max(band[begin : begin + spans]) for begin in range(0, 39 * spans, spans)]

    # Open from 12.1 to 22.1, then half-open; probes at 23 and 24 close at 24.1.
    assert seconds == [0] * 12 + [2] * 11 + [1] * 2 + [0] * 14


def test_equal_recordings_have_equal_outcomes() -> None:
    """Nothing in a replay depends on chance, the time of day or the order of equal ends."""
    sets = [ParameterSet.parse("failure_threshold=2 backoff.jitter=0.5 recovery_timeout=3")]
    first, second = (replay(outage(), sets) for _ in range(2))

    assert changed(first, timeline=second.timeline) == second
