"""The report of a run in Markdown."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from tests.chaos.ledgers import Answer, Payment
from tests.chaos.run import Result
from tests.chaos.storm import Disruption
from tests.chaos.verdict import FaultKind

_NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_MAX_OF_A_KIND = 10


def markdown(result: Result) -> str:
    """The table of one run, followed by a list of what is wrong."""
    workers = "one worker" if result.plan.workers == 1 else f"{result.plan.workers} workers"
    if result.plan.replicas > 1:
        workers = f"{result.plan.replicas} replicas of {workers}"
    lines = [
        f"### {_NAMES[result.plan.database]}, {workers}",
        "",
        "| result | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _rows(result)),
        "",
    ]
    if result.faults:
        lines += [f"{len(result.faults)} faults, here at most {_MAX_OF_A_KIND} of a kind:", ""]
        for kind in FaultKind:
            of_kind = [fault for fault in result.faults if fault.kind is kind]
            lines += [f"- {fault}" for fault in of_kind[:_MAX_OF_A_KIND]]
        lines += [""]
    return "\n".join(lines)


def _rows(result: Result) -> list[tuple[str, object]]:
    tally, ledgers = result.tally, result.ledgers
    seconds = sorted(answer.seconds for answer in ledgers.answers)
    faults = Counter(fault.kind for fault in result.faults)
    missing = faults[FaultKind.MISSING] + faults[FaultKind.UNSETTLED]
    named = (FaultKind.CHARGED_TWICE, FaultKind.FALSE_FAILURE, FaultKind.HUNG)
    wrong = len(result.faults) - missing - sum(faults[kind] for kind in named)
    return [
        ("seed", result.plan.seed),
        ("reintroduced fault", result.plan.fault or "none"),
        ("clocks of the replicas", "wrong by up to 2 days" if tally.has_wrong_clocks else "right"),
        ("duration in seconds", f"{tally.seconds:.0f}"),
        (
            "kills",
            tally.disruptions[Disruption.KILL_WORKER] + tally.disruptions[Disruption.KILL_SERVICE],
        ),
        ("of one worker", tally.disruptions[Disruption.KILL_WORKER]),
        ("of the whole service", tally.disruptions[Disruption.KILL_SERVICE]),
        ("kills that hit pending payments", _share_above_zero(tally.pending_at_kills)),
        ("payments pending at a kill, median and most", _median_and_most(tally.pending_at_kills)),
        ("kills that hit requests in flight", _share_above_zero(tally.in_flight_at_kills)),
        ("graceful restarts", tally.disruptions[Disruption.RESTART]),
        ("suspensions longer than the claims", tally.disruptions[Disruption.SUSPEND_SERVICE]),
        ("restarted after it had exited by itself", tally.ended_by_itself),
        ("database crashes", tally.disruptions[Disruption.CRASH_DATABASE]),
        ("changes of provider mode", tally.disruptions[Disruption.TURN_PROVIDER]),
        ("orders", len(ledgers.orders)),
        ("requests", len(ledgers.answers)),
        ("responses", _by_status(ledgers.answers)),
        ("payments at the end", _counts(Counter(map(_end, ledgers.payments)))),
        ("charges at the provider", sum(charge.times_charged for charge in ledgers.charges)),
        ("late charges that arrived after the end", ledgers.delivered),
        ("seconds until no payment was pending", f"{tally.calm_seconds:.1f}"),
        (
            f"seconds of a request, 99 % and longest (limit {result.plan.limit_seconds:g})",
            f"{_percentile(seconds, 0.99):.2f}, {seconds[-1]:.2f}",
        ),
        (
            (
                "longest in the log, from acceptance by a process "
                f"(limit {result.plan.served_limit_seconds:g})"
            ),
            f"{tally.longest_served_seconds:.2f}",
        ),
        ("over their limit", faults[FaultKind.HUNG]),
        ("missing", missing),
        ("charged twice", faults[FaultKind.CHARGED_TWICE]),
        ("failed, but charged", faults[FaultKind.FALSE_FAILURE]),
        ("other faults", wrong),
        ("verdict", "FAILED" if result.faults else "every payment was charged once, or never"),
    ]


def _end(payment: Payment) -> str:
    reason = payment.failure_reason
    return payment.status if reason is None else f"{payment.status} ({reason})"


def _share_above_zero(counts: Sequence[int]) -> str:
    return f"{sum(count > 0 for count in counts)} of {len(counts)}"


def _median_and_most(counts: Sequence[int]) -> str:
    return f"{statistics.median(counts):g}, {max(counts)}" if counts else "unknown"


def _by_status(answers: Sequence[Answer]) -> str:
    return _counts(Counter(str(answer.status or "connection broken") for answer in answers))


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
