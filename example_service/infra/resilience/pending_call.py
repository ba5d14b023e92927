"""A call that ends in an object that its caller may drop: a future, a stream, a response."""

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.rules.phases import Permit


class PendingCall:
    """Keeps the permit of a call until its outcome is known, and hands it back once.

    The object in which the call ends keeps this one alive. If it is dropped before it ends, the
    call says nothing about the dependency, and its place becomes free.

    Args:
        guard: What gave the permit.
        permit: What it gave.
    """

    __slots__ = ("_guard", "_permits")

    def __init__(self, guard: Guard, permit: Permit) -> None:
        self._guard = guard
        # A list, because taking from it is atomic: a response may be read in one thread and closed
        # in another.
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
        """Judge the exception that ended the call."""
        if (permit := self.take()) is not None:
            self._guard.settle(permit, error)

    def release(self) -> None:
        """Count nothing."""
        if (permit := self.take()) is not None:
            self._guard.release(permit)

    def take(self) -> Permit | None:
        """The permit to hand back; None if that has been done."""
        try:
            return self._permits.pop()
        except IndexError:
            return None
