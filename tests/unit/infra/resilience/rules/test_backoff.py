"""`Backoff`: how long a circuit stays open when recovery keeps failing."""

from typing import Any

import pytest

from example_service.infra.resilience import Backoff


@pytest.mark.parametrize(
    ("parameter", "value", "error"),
    [
        *[("multiplier", value, ValueError) for value in (0.5, 0, -2, float("nan"), float("inf"))],
        *[("multiplier", value, TypeError) for value in ("2", None, True)],
        *[("max_timeout", value, ValueError) for value in (0, -1.0, float("inf"), float("nan"))],
        *[("max_timeout", value, TypeError) for value in ("300", True)],
        *[("jitter", value, ValueError) for value in (-0.1, 1.1, float("nan"), float("inf"))],
        *[("jitter", value, TypeError) for value in ("0.2", None, True)],
        *[("seed", value, TypeError) for value in (1.5, "7", True)],
    ],
)
def test_a_bad_value_is_refused_by_name(parameter: str, value: Any, error: type[Exception]) -> None:
    """The error names the parameter."""
    with pytest.raises(error, match=rf"^Backoff\.{parameter} "):
        Backoff(**{parameter: value})


def test_it_is_frozen_and_equal_by_value() -> None:
    """Several breakers may share one object."""
    assert Backoff(jitter=0.2, seed=7) == Backoff(jitter=0.2, seed=7)
    with pytest.raises(AttributeError):
        Backoff().jitter = 0.2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff(), [60.0, 120.0, 240.0, 300.0, 300.0]),
        (Backoff(multiplier=1.0), [60.0] * 5),
        (Backoff(multiplier=3.0, max_timeout=1000.0), [60.0, 180.0, 540.0, 1000.0, 1000.0]),
        (Backoff(max_timeout=10.0), [10.0] * 5),
        (Backoff(multiplier=2), [60.0, 120.0, 240.0, 300.0, 300.0]),
    ],
)
def test_waits_grow_up_to_the_limit(backoff: Backoff, waits: list[float]) -> None:
    """A wait is `recovery_timeout * multiplier**reopenings`, but at most `max_timeout`."""
    assert [backoff.wait_seconds(60.0, number, number + 1) for number in range(5)] == waits


@pytest.mark.parametrize("multiplier", [1.0, 1.5, 2.0, 2, 1e300])
@pytest.mark.parametrize("recovery_timeout", [5e-324, 60.0, 60, 1.7e308])
def test_every_wait_is_finite_and_above_zero(multiplier: float, recovery_timeout: float) -> None:
    """This applies to any number of failed recoveries and to extreme parameters."""
    backoff = Backoff(multiplier=multiplier)
    for reopenings in (0, 1, 10, 1000, 5000):
        wait = backoff.wait_seconds(recovery_timeout, reopenings, reopenings + 1)
        assert 0.0 < wait < float("inf")


class TestJitter:
    """Jitter shortens a wait by a random share."""

    @pytest.mark.parametrize("seed", [None, 7])
    @pytest.mark.parametrize("jitter", [0.2, 1.0])
    def test_waits_stay_within_their_bounds_and_differ(
        self, jitter: float, seed: int | None
    ) -> None:
        """Waits are never longer than without jitter, and spread over the whole range."""
        backoff = Backoff(multiplier=1.0, jitter=jitter, seed=seed)
        waits = [backoff.wait_seconds(60.0, 0, opening) for opening in range(1, 1001)]
        low = 60.0 * (1.0 - jitter)
        assert low <= min(waits) < low + 0.05 * (60.0 - low)
        assert 60.0 - 0.05 * (60.0 - low) < max(waits) <= 60.0
        assert len(set(waits)) > 990

    def test_equal_seeds_give_equal_waits(self) -> None:
        """Each opening has the same wait, in whatever order the waits are requested."""
        one, other = Backoff(jitter=0.5, seed=7), Backoff(jitter=0.5, seed=7)
        openings = range(1, 20)
        forwards = [one.wait_seconds(60.0, 0, opening) for opening in openings]
        backwards = [other.wait_seconds(60.0, 0, opening) for opening in reversed(openings)]
        assert forwards == backwards[::-1]
        assert forwards != [
            Backoff(jitter=0.5, seed=8).wait_seconds(60.0, 0, opening) for opening in openings
        ]

    def test_without_a_seed_equal_openings_have_different_waits(self) -> None:
        """Otherwise all processes would probe at the same time."""
        waits = {Backoff(jitter=1.0).wait_seconds(60.0, 0, 1) for _ in range(10)}
        assert len(waits) == 10

    def test_without_jitter_no_random_number_is_drawn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By default waits are exact, and no random number is drawn."""
        monkeypatch.setattr("random.random", lambda: pytest.fail("drawn"))
        assert Backoff().wait_seconds(60.0, 0, 1) == 60.0
