"""Search for parameters that spare many failing calls and refuse few healthy ones.

Parameters that the user has set are not changed. The search first tries rules that open a circuit,
then the best of them with other recovery timeouts. Each step reads the recording once for all sets.
A call is failing if it failed or took at least the `slow_call_duration` that the user has set.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, floor, log10
from typing import Final

from example_service.replay.calls import SUCCESS, Call
from example_service.replay.parameters import ParameterSet
from example_service.replay.simulation import Outcome, replay

SUGGESTED: Final = "suggested"
"""The name of the suggested set."""

THRESHOLDS: Final = (3, 5, 10, 20)
RATES: Final = ((0.25, 10.0), (0.5, 10.0), (0.5, 30.0))
RECOVERY_TIMEOUTS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FIRST_RECOVERY_TIMEOUT: Final = 5.0
FINALISTS: Final = 6
# A call is suspiciously slow if it takes 3 times as long as 99 % of the healthy calls.
_SLOW_TIMES: Final = 3.0
_HEALTHY_SHARE: Final = 0.99
# Durations are counted in logarithmic classes: each upper bound is 10 % above the previous one.
_CLASS: Final = 1.1
_SHORTEST: Final = 0.0001
_NOTHING_FAILING: Final = (
    "No recorded call is failing, so there is none to spare. Where slow calls do harm, say how "
    'slow: --set "slow: slow_call_duration=SECONDS".'
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The best set, and the reasons for it.

    Attributes:
        parameters: The set; None if no set meets the goal and spares a call.
        why: Sentences that explain the choice, with numbers.
    """

    parameters: ParameterSet | None
    why: tuple[str, ...]


def suggest(
    read: Callable[[], Iterable[Call]],
    base: ParameterSet,
    share: float,
) -> Suggestion:
    """Search for the best parameters for a recording.

    Args:
        read: Reads the recording from its beginning. Called once for each step.
        base: The parameters that the search does not change.
        share: The goal: the largest share of the healthy calls that may be refused, from 0 to 1.
    """
    first = list(_opening_rules(base, slow_seconds(read())))
    tried = replay(read(), first, base.slow_seconds).outcomes
    tried.sort(key=lambda outcome: _rank(outcome, share))
    if "recovery_timeout" not in base.values:
        second = [
            outcome.parameters.with_values("", {"recovery_timeout": seconds})
            for outcome in tried[-FINALISTS:]
            for seconds in RECOVERY_TIMEOUTS
            if seconds != FIRST_RECOVERY_TIMEOUT
        ]
        tried += replay(read(), second, base.slow_seconds).outcomes
        tried.sort(key=lambda outcome: _rank(outcome, share))
    return _explained(tried, share)


def slow_seconds(calls: Iterable[Call]) -> float | None:
    """A duration that healthy calls rarely reach, in seconds; None if no call reaches it."""
    classes: Counter[int] = Counter()
    longest = 0.0
    for call in calls:
        longest = max(longest, call.duration)
        if call.outcome == SUCCESS:
            classes[ceil(log10(max(call.duration, _SHORTEST)) / log10(_CLASS))] += 1
    below, wanted = 0, _HEALTHY_SHARE * classes.total()
    for number in sorted(classes):
        below += classes[number]
        if below >= wanted:
            seconds = _rounded_up(_SLOW_TIMES * _CLASS**number)
            return seconds if seconds < longest else None
    return None


def _opening_rules(base: ParameterSet, slow: float | None) -> Iterator[ParameterSet]:
    thresholds: list[dict[str, float]] = [{"failure_threshold": number} for number in THRESHOLDS]
    rates: list[dict[str, float]] = [
        {},
        *({"failure_rate.threshold": t, "failure_rate.window_seconds": s} for t, s in RATES),
    ]
    slow_rules: list[dict[str, float]] = [{}]
    if slow is not None:
        slow_rules.append({"slow_call_duration": slow})
    recovery: list[dict[str, float]] = [{"recovery_timeout": FIRST_RECOVERY_TIMEOUT}]
    searched: list[list[dict[str, float]]] = [
        [{}] if any(name.startswith(group) for name in base.values) else choices
        for group, choices in (
            ("failure_threshold", thresholds),
            ("failure_rate", rates),
            ("slow_call_duration", slow_rules),
            ("recovery_timeout", recovery),
        )
    ]
    for choice in product(*searched):
        yield base.with_values("", {name: v for part in choice for name, v in part.items()})


def _rank(outcome: Outcome, share: float) -> tuple[float, ...]:
    """The sort key of an outcome. A larger tuple is better."""
    values = outcome.parameters.values
    if not outcome.spared:
        return (0,)
    # Of equal outcomes, prefer fewer parameters, then a higher threshold.
    simplicity = -len(values), values.get("failure_threshold", 0)
    if not _meets_goal(outcome, share):
        return (1, -outcome.healthy_refused, outcome.spared, *simplicity)
    return (2, outcome.spared, -outcome.healthy_refused, *simplicity)


def _explained(ranked: Sequence[Outcome], share: float) -> Suggestion:
    best = ranked[-1]
    if not best.failing:
        return Suggestion(None, (_NOTHING_FAILING,))
    keeping = [outcome for outcome in ranked if _meets_goal(outcome, share)]
    allowed = f"at most {percent(share)} of the healthy calls"
    if not best.spared:
        return Suggestion(None, (f"None of {len(ranked)} sets spares a call.",))
    if not keeping or not keeping[-1].spared:
        missed = f"None of {len(ranked)} sets spares a call and refuses {allowed}."
        return Suggestion(None, (missed, f"The nearest: {_in_words(best)}"))
    why = [
        _in_words(best),
        f"Of {len(ranked)} sets, {len(keeping)} refuse {allowed}, and none of these spares more.",
    ]
    if others := [
        outcome for outcome in ranked if outcome not in keeping and outcome.spared > best.spared
    ]:
        closest = min(others, key=lambda outcome: (outcome.healthy_refused, -outcome.spared))
        why.append(f"The nearest that spares more: {_in_words(closest)}")
    why.append("This fits one recording: try it on another, then in shadow mode.")
    return Suggestion(best.parameters.with_values(SUGGESTED, {}), tuple(why))


def _meets_goal(outcome: Outcome, share: float) -> bool:
    return outcome.healthy_refused <= share * outcome.healthy


def _in_words(outcome: Outcome) -> str:
    return (
        f"{outcome.parameters.in_words()} spares {of(outcome.spared, outcome.failing)} failing "
        f"calls and refuses {of(outcome.healthy_refused, outcome.healthy)} healthy ones."
    )


def of(part: int, whole: int) -> str:
    """Format a count with the total and its share of it."""
    return f"{part:,} of {whole:,} ({percent(part / whole if whole else 0.0)})"


def percent(share: float) -> str:
    """Format a share in percent with at most two decimals."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def _rounded_up(seconds: float) -> float:
    """Round up to two significant digits."""
    unit = 10.0 ** (floor(log10(seconds)) - 1)
    return round(ceil(seconds / unit) * unit, 6)
