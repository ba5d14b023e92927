"""What is logged when several parts depend on one thing that fails."""

import pytest

from example_service.core.fault_log import FaultLog


@pytest.fixture
def faults() -> FaultLog:
    """A log for a store."""
    return FaultLog("lost: %s", "back")


def test_the_first_failure_is_logged(faults: FaultLog, caplog: pytest.LogCaptureFixture) -> None:
    """All further failures have the same cause, and would only repeat it."""
    assert faults.failed("circuits", "no such file")
    assert not faults.failed("circuits", "no such file")
    assert not faults.failed("reports", "not a directory")
    assert caplog.messages == ["lost: no such file"]


def test_the_return_is_logged_when_all_parts_work(
    faults: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    """After that, the next failure is a new one."""
    faults.works("circuits")
    faults.failed("circuits", "full")
    faults.failed("reports", "full")
    faults.works("circuits")
    assert caplog.messages == ["lost: full"]
    faults.works("reports")
    assert faults.failed("circuits", "full again")
    assert caplog.messages == ["lost: full", "back", "lost: full again"]
