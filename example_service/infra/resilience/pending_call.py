"""A call that ends in an object that its caller may drop: a future, a stream, a response."""

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.rules.phases import Permit


class PendingCall:
    """Keeps the permit of a call until its outcome is known, and hands it back once.

    The object in which the call ends keeps this one alive. If it is dropped before that, the call
    is neutral, and its probe slot becomes free.

    Args:
        guard: The guard that admitted the call.
        permit: The permit of the call.
    """

    __slots__ = ("_guard", "_permits")

    def __init__(self, guard: Guard, permit: Permit) -> None:
        self._guard = guard
        # A list, because `pop` is atomic: a response may be read in one thread and closed in
        # another.
        self._permits = [permit]

    def __del__(self) -> None:
        if self._permits:
            self.release()

    @property
    def is_settled(self) -> bool:
        """Whether the outcome is known."""
        return not self._permits

    def succeed(self) -> None:
        """Count a success."""
        if (permit := self.take()) is not None:
            self._guard.succeed(permit)

    def settle(self, error: BaseException) -> None:
        """Classify the exception that ended the call."""
        if (permit := self.take()) is not None:
            self._guard.settle(permit, error)

    def release(self) -> None:
        """Hand the permit back: the outcome is neutral."""
        if (permit := self.take()) is not None:
            self._guard.release(permit)

    def take(self) -> Permit | None:
        """Return the permit to hand back; None if it was handed back already."""
        try:
            return self._permits.pop()
        except IndexError:
            return None
