"""Recording incidents in the sandbox."""

import subprocess
import sys
from pathlib import Path

import pytest

from example_service.replay.calls import FAILURE, SUCCESS
from example_service.replay.parameters import ParameterSet
from example_service.replay.recording import Recording
from example_service.replay.simulation import replay
from example_service.sandbox.incidents import CALLS_PER_SECOND, INCIDENTS, SECONDS

SHIPPED = Path(__file__).resolve().parents[3] / "docs" / "incidents"


@pytest.mark.integration
@pytest.mark.parametrize("incident", INCIDENTS)
def test_an_incident_is_recorded_from_the_sandbox(incident: str, tmp_path: Path) -> None:
    """The command prints calls for a replay: healthy ones, bad ones, healthy ones again."""
    path = tmp_path / "incident.csv"
    command = [sys.executable, "-m", "example_service.sandbox.incidents", incident]
    with path.open("wb") as output:
        subprocess.run([*command, "--seconds", "1"], stdout=output, check=True, timeout=60)

    with path.open("rb") as file:
        calls = list(Recording(path, file))
    assert len(calls) == 3 * CALLS_PER_SECOND
    bad = [call for call in calls if call.outcome == FAILURE or call.duration >= 0.5]
    assert len(bad) >= CALLS_PER_SECOND / 5
    assert any(call not in bad for call in calls[:CALLS_PER_SECOND])


@pytest.mark.parametrize("incident", INCIDENTS)
def test_a_recording_is_shipped_of_each_incident(incident: str) -> None:
    """It is small and complete, and a sensible breaker opens in it."""
    path = SHIPPED / f"{incident}.csv"
    text = "slow_call_duration=0.5 failure_rate.threshold=0.4 failure_rate.window_seconds=10"
    with path.open("rb") as file:
        replayed = replay(Recording(path, file), [ParameterSet.parse(text)])

    assert path.stat().st_size < 50_000
    assert replayed.calls == 3 * SECONDS * CALLS_PER_SECOND
    assert replayed.outcomes[0].opened
    with path.open("rb") as file:
        assert next(iter(Recording(path, file))).outcome == SUCCESS
