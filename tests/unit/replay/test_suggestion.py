"""Searching for parameters that meet a goal."""

import re
from collections.abc import Callable, Iterator

import pytest

from example_service.replay.calls import FAILURE, NEUTRAL, SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.simulation import Outcome, replay
from example_service.replay.suggestion import slow_seconds, suggest

DEFAULTS = ParameterSet.parse("defaults:")


def outage() -> Iterator[Call]:
    """Ten calls per second for two minutes, with half a minute of failures."""
    for number in range(1_200):
        time = number / 10
        yield Call(time, 0.05, FAILURE if 30 <= time < 60 else SUCCESS)


def outcome_of(parameters: ParameterSet) -> Outcome:
    """The outcome of a set in this outage."""
    return replay(outage(), [parameters]).outcomes[0]


@pytest.mark.parametrize("percent", [0.0, 1.0, 2.5, 5.0, 100.0])
def test_a_suggestion_meets_the_goal_and_beats_the_defaults(percent: float) -> None:
    """It refuses no more healthy calls than allowed; a stricter goal avoids no more failures."""
    suggestion = suggest(outage, DEFAULTS, percent / 100)

    if suggestion.parameters is None:
        assert percent < 1
        assert suggestion.why[0].startswith("None of")
    else:
        outcome = outcome_of(suggestion.parameters)
        assert outcome.healthy_refused <= percent / 100 * outcome.healthy
        assert outcome.spared > 250


def test_the_explanation_has_the_figures_of_the_suggestion() -> None:
    """Its sentences match a replay of the suggested set."""
    suggestion = suggest(outage, DEFAULTS, 0.05)

    assert suggestion.parameters is not None
    outcome = outcome_of(suggestion.parameters)
    assert suggestion.parameters.in_words() in suggestion.why[0]
    assert re.findall(r"([\d,]+) of ([\d,]+)", suggestion.why[0]) == [
        (f"{outcome.spared}", f"{outcome.failing}"),
        (f"{outcome.healthy_refused}", f"{outcome.healthy}"),
    ]
    tried, keeping = map(int, re.findall(r"\d+", suggestion.why[1])[:2])
    assert 0 < keeping < tried


def test_given_values_are_kept() -> None:
    """Values of the given set are fixed, and all others are searched."""
    base = ParameterSet.parse("mine: failure_threshold=7 recovery_timeout=3 success_threshold=1")
    suggestion = suggest(outage, base, 1.0)

    assert suggestion.parameters is not None
    assert base.values.items() <= suggestion.parameters.values.items()


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        (
            lambda: iter([Call(s, 0.1, SUCCESS) for s in range(9)]),
            "No .* slow_call_duration=SECONDS",
        ),
        (
            lambda: iter([Call(s, 0.1, FAILURE if s == 4 else SUCCESS) for s in range(9)]),
            r"None of \d+ sets spares a call",
        ),
    ],
)
def test_without_failing_calls_there_is_no_suggestion(
    calls: Callable[[], Iterator[Call]], why: str
) -> None:
    """The explanation says why there is none."""
    suggestion = suggest(calls, DEFAULTS, 0.01)

    assert suggestion.parameters is None
    assert re.match(why, suggestion.why[0])


def test_slow_calls_are_failing_if_the_given_set_says_so() -> None:
    """Once `slow_call_duration` defines slow calls, the search tries to avoid those, too."""

    def slowness() -> Iterator[Call]:
        for call in outage():
            failed = call.outcome == FAILURE
            yield Call(call.time, 2.0 if failed else call.duration, SUCCESS)

    base = ParameterSet.parse("mine: slow_call_duration=1")
    suggestion = suggest(slowness, base, 0.05)

    assert suggestion.parameters is not None
    assert suggest(slowness, DEFAULTS, 0.05).parameters is None


def test_a_slow_call_takes_much_longer_than_healthy_ones() -> None:
    """The limit is three times the 99th percentile of healthy calls, if any call exceeds it."""
    healthy = [Call(s, 0.1, SUCCESS) for s in range(100)]

    assert slow_seconds(healthy) is None
    assert slow_seconds([]) is None
    assert slow_seconds([*healthy, Call(100, 5.0, NEUTRAL)]) == pytest.approx(0.32, rel=0.1)
