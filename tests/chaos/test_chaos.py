"""The short chaos test: no payment is lost, whatever is killed and when."""

from pathlib import Path

import pytest

from tests.chaos.report import markdown
from tests.chaos.run import Plan, run

pytestmark = pytest.mark.integration

# On a busy machine, processes start slowly.
PLANS = [
    Plan(
        "postgresql", workers=1, seed=1, kills=6, crashes=2, clients=6, start_seconds=30, replicas=2
    ),
    Plan("sqlite", workers=1, seed=1, kills=5, crashes=0, clients=6, start_seconds=30),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.database)
async def test_every_accepted_payment_is_charged_exactly_once(plan: Plan, tmp_path: Path) -> None:
    """No payment is lost or charged twice while workers, database and provider fail."""
    result = await run(plan, tmp_path, print)

    assert result.faults == [], markdown(result)
    # Otherwise the kills would have interrupted nothing.
    assert sum(result.tally.pending_at_kills) + sum(result.tally.in_flight_at_kills) > 0
