"""A storm has the requested events and can be repeated."""

from collections import Counter

from example_service.sandbox.modes import ModeChange, SandboxMode
from tests.chaos.run import REQUEST_TIMEOUT_SECONDS
from tests.chaos.storm import CLAIM_SECONDS, PROVIDER_TIMEOUT_SECONDS, Disruption, plan


def test_the_same_seed_draws_the_same_storm() -> None:
    """Another seed draws another storm."""
    assert plan(7, kills=20, crashes=2, workers=2) == plan(7, kills=20, crashes=2, workers=2)
    assert plan(7, kills=20, crashes=2, workers=2) != plan(8, kills=20, crashes=2, workers=2)


def test_a_storm_has_the_requested_number_of_kills_and_crashes() -> None:
    """Some kills hit one worker, some the whole service."""
    disruptions = Counter(event.disruption for event in plan(1, kills=200, crashes=20, workers=2))

    assert disruptions[Disruption.KILL_WORKER] + disruptions[Disruption.KILL_SERVICE] == 200
    assert disruptions[Disruption.KILL_WORKER] > disruptions[Disruption.KILL_SERVICE] > 20
    assert disruptions[Disruption.CRASH_DATABASE] == 20
    assert disruptions[Disruption.RESTART] > 0


def test_services_are_suspended_beyond_their_claims() -> None:
    """Other processes claim their payments meanwhile, but no request times out."""
    events = plan(1, kills=6, crashes=0, workers=2)
    seconds = [s.down_seconds for s in events if s.disruption is Disruption.SUSPEND_SERVICE]

    assert seconds
    assert CLAIM_SECONDS < min(seconds) <= max(seconds) < REQUEST_TIMEOUT_SECONDS


def test_one_worker_is_the_whole_service() -> None:
    """Without a supervisor, each kill ends the service."""
    disruptions = {event.disruption for event in plan(1, kills=50, crashes=0, workers=1)}

    assert not disruptions & {Disruption.KILL_WORKER, Disruption.CRASH_DATABASE}


def test_the_provider_fails_in_every_way() -> None:
    """Each mode is drawn and valid, and slow answers exceed the timeout."""
    events = plan(1, kills=200, crashes=20, workers=2)
    changes = [
        ModeChange.model_validate(s.mode)
        for s in events
        if s.disruption is Disruption.TURN_PROVIDER
    ]

    assert {change.mode for change in changes} == set(SandboxMode)
    for change in changes:
        assert (change.latency_seconds or 1) > PROVIDER_TIMEOUT_SECONDS
