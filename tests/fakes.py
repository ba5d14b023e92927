"""Doubles with the real interfaces."""

from example_service.infra.resilience import CallFailed, CallRejected, CallSucceeded, StateChanged


class FakeClock:
    """A clock that moves only when it is told to.

    Args:
        now: Seconds that it shows at first.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Stand in for `asyncio.sleep`: lets the time pass at once."""
        self.advance(seconds)


class RecordingListener:
    """Keeps every event in the order in which it came."""

    def __init__(self) -> None:
        self.events: list[StateChanged | CallSucceeded | CallFailed | CallRejected] = []

    def on_state_change(self, event: StateChanged, /) -> None:
        """Keep a change of state."""
        self.events.append(event)

    def on_success(self, event: CallSucceeded, /) -> None:
        """Keep a success."""
        self.events.append(event)

    def on_failure(self, event: CallFailed, /) -> None:
        """Keep a failure."""
        self.events.append(event)

    def on_rejection(self, event: CallRejected, /) -> None:
        """Keep a refused call."""
        self.events.append(event)
