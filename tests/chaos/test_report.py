"""The report of a run, and the exit status of the program."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import __main__ as program
from tests.chaos.ledgers import Answer, Charge, Ledgers, Payment
from tests.chaos.report import markdown
from tests.chaos.run import Plan, Result, Tally
from tests.chaos.storm import Disruption
from tests.chaos.verdict import Fault, FaultKind

FAULT = Fault(FaultKind.CHARGED_TWICE, "payment-1")


def result(plan: Plan, *faults: Fault) -> Result:
    """The result of a small run."""
    tally = Tally(
        disruptions=dict.fromkeys(Disruption, 0)
        | {Disruption.KILL_WORKER: 3, Disruption.KILL_SERVICE: 1},
        pending_at_kills=[0, 2, 7],
        in_flight_at_kills=[1, 1, 0, 4],
        longest_served_seconds=0.75,
    )
    ledgers = Ledgers(
        answers=[Answer("key", "request", status, 0.5) for status in (201, 201, 503, None)],
        payments=[
            Payment(
                id="payment-1",
                status="succeeded",
                amount=1,
                currency="EUR",
                customer_id="customer-1",
                failure_reason=None,
            )
        ],
        charges=[
            Charge(
                idempotency_key="payment-1",
                amount=1,
                currency="EUR",
                customer_id="customer-1",
                times_charged=2,
            )
        ],
    )
    return Result(plan, tally, ledgers, list(faults))


def cells(report: str) -> dict[str, str]:
    """The cells of the report's table by row."""
    rows = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| ")]
    return dict(rows)


def test_the_report_has_the_counts_and_the_verdict() -> None:
    """It counts kills, answers, payments and charges."""
    table = cells(markdown(result(Plan("postgresql", 2, seed=7, kills=4, crashes=0))))

    assert table["seed"] == "7"
    assert table["kills"] == "4"
    assert table["kills that hit pending payments"] == "2 of 3"
    assert table["payments pending at a kill, median and most"] == "2, 7"
    assert table["kills that hit requests in flight"] == "3 of 4"
    assert table["responses"] == "2 201, 1 503, 1 connection broken"
    assert table["payments at the end"] == "1 succeeded"
    assert table["charges at the provider"] == "2"
    assert table["verdict"] == "every payment was charged once, or never"


def test_the_report_lists_what_is_wrong() -> None:
    """The table counts each kind of fault, and a list below it has the details."""
    report = markdown(result(Plan("sqlite", 1, seed=7, kills=4, crashes=0), FAULT))

    assert cells(report)["charged twice"] == "1"
    assert cells(report)["verdict"] == "FAILED"
    assert "- charged twice: payment-1" in report


@pytest.mark.parametrize(("faults", "status"), [([], 0), ([FAULT], 1)])
def test_the_exit_status_shows_the_verdict(
    faults: list[Fault], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If something is wrong, it is 1 and the logs are kept."""
    plans: list[Plan] = []

    async def run(plan: Plan, folder: Path, report_progress: Callable[[str], object]) -> Result:
        plans.append(plan)
        (folder / "service-1-001.log").touch()
        report_progress("done")
        return result(plan, *faults)

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert program.main(["--seed", "7", "--kills", "3"]) == status
    assert [(plan.database, plan.workers, plan.seed) for plan in plans] == [
        ("postgresql", 2, 7),
        ("sqlite", 1, 7),
    ]
    assert plans[0].kills == 3
    assert len(list(tmp_path.glob("chaos-*/service-1-001.log"))) == 2 * status
