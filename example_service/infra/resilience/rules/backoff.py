"""How long a circuit stays open when recovery fails again and again."""

import math
import random
from dataclasses import dataclass

from example_service.infra.resilience.validation import check_number


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait of an open circuit as a function of failed recoveries.

    The wait is `min(recovery_timeout * multiplier**reopenings, max_timeout)`, where `reopenings`
    counts the failed recoveries since the circuit was last closed.

    Attributes:
        multiplier: Factor by which each failed recovery lengthens the wait; at least 1.0, which
            means no growth.
        max_timeout: Limit of the wait in seconds; None means five times `recovery_timeout`.
        jitter: Share of the wait, 0.0 to 1.0, by which it is shortened at random, so that many
            processes do not probe at the same time. With 0.2 a wait of 60 seconds becomes one
            between 48 and 60.
        seed: Makes the random shares repeatable: equal seeds give equal waits, opening by opening.
            With None they vary.

    Example:
        Wait 30 seconds, then 60, then 120, and from then on 120:

        ```python
        from example_service.infra.resilience import Backoff, CircuitBreaker

        breaker = CircuitBreaker(
            "search", recovery_timeout=30.0, backoff=Backoff(multiplier=2.0, max_timeout=120.0)
        )
        ```

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is outside its range.
    """

    multiplier: float = 2.0
    max_timeout: float | None = None
    jitter: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_number("Backoff.multiplier", self.multiplier, at_least=1.0)
        if self.max_timeout is not None:
            check_number("Backoff.max_timeout", self.max_timeout)
        check_number("Backoff.jitter", self.jitter, at_least=0.0, at_most=1.0)
        if self.seed is not None and (
            isinstance(self.seed, bool) or not isinstance(self.seed, int)
        ):
            raise TypeError(f"Backoff.seed must be a whole number or None, not {self.seed!r}")

    def wait_seconds(self, recovery_timeout: float, reopenings: int, opening: int) -> float:
        """Seconds to stay open; always finite.

        Args:
            recovery_timeout: Seconds of the first wait.
            reopenings: Failed recoveries since the circuit was last closed, from 0.
            opening: Which opening of the circuit it is, from 1; with `seed` it picks the share.
        """
        limit = 5 * recovery_timeout if self.max_timeout is None else self.max_timeout
        try:
            wait = min(recovery_timeout * self.multiplier**reopenings, limit)
        except OverflowError:
            wait = limit
        if not math.isfinite(wait):
            wait = recovery_timeout
        if not self.jitter:
            return wait
        share = random.random() if self.seed is None else self._seeded_share(opening)  # noqa: S311
        return wait * (1.0 - self.jitter * share)

    def _seeded_share(self, opening: int) -> float:
        return random.Random(f"{self.seed}:{opening}").random()  # noqa: S311
