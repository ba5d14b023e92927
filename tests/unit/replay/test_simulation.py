"""What each set of parameters would have done with recorded calls, calculated by hand."""

from collections.abc import Iterator
from dataclasses import replace as changed

import pytest

from example_service.replay.calls import FAILURE, NEUTRAL, SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.simulation import MAX_OPENINGS, Outcome, replay
from example_service.replay.timeline import MAX_SPANS


def outage(begin: int = 10, end: int = 20, until: int = 40) -> Iterator[Call]:
    """One call of 0.1 seconds every second, failing for a while."""
    for second in range(until):
        yield Call(second, 0.1, FAILURE if begin <= second < end else SUCCESS)


def outcome_of(text: str, calls: Iterator[Call] | list[Call]) -> Outcome:
    """What one set would have done."""
    return replay(calls, [ParameterSet.parse(text)]).outcomes[0]


def test_calls_are_refused_from_the_threshold_to_the_end_of_the_outage() -> None:
    """Three failures open the circuit, a probe runs every five seconds, two successes close it."""
    outcome = outcome_of("failure_threshold=3 recovery_timeout=5 backoff.multiplier=1", outage())

    # The call at 12 opens it as it ends; probes are at 18 (fails) and 24, 25 (succeed).
    [opening] = outcome.openings
    assert (opening.why, opening.spared, opening.healthy_refused) == ("3 failures in a row", 6, 4)
    moments = (opening.opened_at, opening.closed_at, opening.recovery_seconds)
    assert moments == pytest.approx((12.1, 25.1, 25.1 - 19.1))
    assert (outcome.opened, outcome.refused, outcome.spared) == (1, 10, 6)
    assert (outcome.failing, outcome.healthy, outcome.healthy_refused) == (10, 30, 4)
    assert outcome.seconds_spared == pytest.approx(0.6)


def test_sets_do_not_influence_one_another() -> None:
    """Each of several sets has the outcome that it would have alone."""
    texts = ["failure_threshold=3", "failure_threshold=100", "failure_threshold=1"]
    sets = [ParameterSet.parse(text) for text in texts]

    assert replay(outage(), sets).outcomes == [outcome_of(text, outage()) for text in texts]


def test_a_hanging_call_opens_at_its_deadline() -> None:
    """With `slow_call_duration`, a call counts as slow while it is still hanging."""
    calls = [Call(0.0, 30.0, NEUTRAL), *[Call(second, 0.1, SUCCESS) for second in range(1, 8)]]
    outcome = outcome_of("failure_threshold=1 slow_call_duration=2.5 recovery_timeout=60", calls)

    [opening] = outcome.openings
    assert opening.opened_at == pytest.approx(2.5)
    assert (outcome.failing, outcome.healthy, outcome.healthy_refused) == (1, 7, 5)
    assert opening.closed_at is None


def test_an_earlier_slow_call_does_not_move_a_later_opening() -> None:
    """An overdue call that does not open the circuit does not affect the time of the opening."""
    calls = [
        Call(0.0, 3.0, SUCCESS),
        Call(4.0, 0.1, SUCCESS),
        *[Call(second, 0.1, FAILURE) for second in (10, 11)],
    ]
    outcome = outcome_of("failure_threshold=2 slow_call_duration=1", calls)

    assert [opening.opened_at for opening in outcome.openings] == [pytest.approx(11.1)]


def test_a_probe_that_hangs_opens_again_at_its_deadline() -> None:
    """Deadlines that pass between two calls take effect in order, however far apart the calls."""
    calls = [
        Call(0.0, 0.1, FAILURE),
        Call(5.2, 100.0, NEUTRAL),
        Call(50.0, 0.1, SUCCESS),
        Call(51.0, 0.1, SUCCESS),
    ]
    outcome = outcome_of(
        "failure_threshold=1 recovery_timeout=5 probe_timeout=2 backoff.multiplier=1", calls
    )

    assert outcome.opened == 1
    assert outcome.openings[0].closed_at == pytest.approx(51.1)
    assert outcome.refused == 0


def test_calls_that_neither_succeed_nor_fail_change_nothing() -> None:
    """They count neither as failing nor as healthy, and do not open the circuit."""
    outcome = outcome_of("failure_threshold=1", [Call(s, 0.1, NEUTRAL) for s in range(5)])

    assert (outcome.failing, outcome.healthy, outcome.opened) == (0, 0, 0)


def test_slow_calls_can_count_as_failing_for_every_set() -> None:
    """To make sets comparable, one limit decides for all of them which calls are failing."""
    calls = [Call(second, 0.1 + second % 2, SUCCESS) for second in range(10)]
    sets = [ParameterSet.parse("a:"), ParameterSet.parse("b: slow_call_duration=0.5")]

    own = [(outcome.failing, outcome.healthy) for outcome in replay(calls, sets).outcomes]
    shared = [(outcome.failing, outcome.healthy) for outcome in replay(calls, sets, 0.5).outcomes]
    assert own == [(0, 10), (5, 5)]
    assert shared == [(5, 5), (5, 5)]


def test_there_is_no_recovery_time_without_a_failing_call() -> None:
    """If slow calls opened the circuit and no call failed, there is nothing to recover from."""
    calls = [Call(0.0, 3.0, NEUTRAL), *[Call(s, 0.1, SUCCESS) for s in range(10, 20)]]
    outcome = replay(
        calls,
        [ParameterSet.parse("failure_threshold=1 slow_call_duration=1 recovery_timeout=2")],
        slow_seconds=60.0,
    ).outcomes[0]

    assert [opening.recovery_seconds for opening in outcome.openings] == [None]


def test_memory_does_not_grow_with_the_recording() -> None:
    """Openings beyond a limit are only counted, and the spans of the timeline get longer."""
    calls = (Call(10.0 * n, 0.1, FAILURE if n % 3 == 0 else SUCCESS) for n in range(6_000))
    text = "failure_threshold=1 success_threshold=1 recovery_timeout=5"
    result = replay(calls, [ParameterSet.parse(text)])

    [outcome] = result.outcomes
    assert outcome.opened == 2_000
    assert len(outcome.openings) == MAX_OPENINGS
    timeline = result.timeline
    assert len(timeline.calls) == len(timeline.failures) == len(timeline.bands[0]) <= MAX_SPANS
    assert (sum(timeline.calls), sum(timeline.failures)) == (6_000, 2_000)


def test_the_band_of_a_set_shows_when_it_was_open() -> None:
    """Each span has its worst state: closed, open, half-open while probing, then closed."""
    result = replay(outage(), [ParameterSet.parse("failure_threshold=3 recovery_timeout=10")])
    timeline = result.timeline
    spans = round(1 / timeline.span_seconds)
    band = timeline.bands[0]
    seconds = [max(band[begin : begin + spans]) for begin in range(0, 39 * spans, spans)]

    # It is open from 12.1 to 22.1, then half-open; the probes at 23 and 24 close it at 24.1.
    assert seconds == [0] * 12 + [2] * 11 + [1] * 2 + [0] * 14


def test_equal_recordings_have_equal_outcomes() -> None:
    """A replay does not depend on chance, the time of day or the order of simultaneous ends."""
    sets = [ParameterSet.parse("failure_threshold=2 backoff.jitter=0.5 recovery_timeout=3")]
    first, second = (replay(outage(), sets) for _ in range(2))

    assert changed(first, timeline=second.timeline) == second
