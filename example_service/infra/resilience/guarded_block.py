"""`async with breaker` and `with breaker`: how each exit finds its own admission.

Blocks on one breaker nest, overlap in hundreds of tasks and may be left in another task than the
one that entered, so neither the breaker nor a context variable can hold the permit. The language
gives the place: a `with` statement looks up the exit method *before* it calls the enter method
(PEP 343 and PEP 492 spell that order out, and `contextlib.ExitStack` keeps it). `BlockExit` is a
descriptor that hands out, at that look-up, an exit bound to a `GuardedBlock` of its own, and the
enter that follows in the same thread puts the permit into it.

While the circuit is closed, the permit is the closed phase itself and the same for everybody: one
shared block is handed out and nothing is prepared. While it is open no block is entered, and one is
shared too: the enter that finds the wait to be over puts its probe into that one.

What this cannot pair (enter and exit called by name, or another thread that changes the state
between look-up and enter) goes through the breaker's unclaimed permits: an enter without a block
leaves its permit there, and an exit without a permit takes one from there, or else ends a call that
the closed phase admitted.
"""

import math
import weakref
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING

from example_service.infra.resilience.rules.circuit_state import (
    NO_PERMITS,
    Closed,
    Open,
    Permit,
    TimedCall,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from example_service.infra.resilience.guard import BreakerCore

# Blocks whose exit was looked up and whose enter has not come yet, by thread. An enter follows its
# look-up at once, so a thread never has more than one. One that was not looked up for an enter is
# forgotten when its exit is called, as by a class that delegates to it, or at the next look-up, as
# after a mere `hasattr`: the next enter's permit in it would be lost.
prepared_blocks: "dict[int, GuardedBlock]" = {}


# A permit in its place spares the hot path a question.
NOT_ENTERED = TimedCall(None, 0.0, math.inf)


class GuardedBlock:
    """One guarded block, or all those of one closed phase.

    Args:
        breaker: The breaker that is asked when the block ends; None until it is entered, where
            the exit was looked up on the class. Held weakly, so that a breaker is freed with its
            last reference; a block that outlives its breaker has nobody to report to.
        permit: The permit to hand back; `NOT_ENTERED` until the block is entered.
    """

    __slots__ = ("_breaker", "_successes", "permit")

    def __init__(self, breaker: "BreakerCore | None", permit: Permit) -> None:
        self._breaker: weakref.ref[BreakerCore] | None = None
        self._successes: Iterator[None]
        self.permit = permit
        if breaker is not None:
            self._breaker = weakref.ref(breaker)
            self._successes = breaker._machine.successes

    def enter(self, breaker: "BreakerCore", permit: Permit) -> bool:
        """Take the permit of the enter that belongs to this block's exit.

        Returns:
            False where the block was prepared for another breaker.
        """
        if self._breaker is None:
            self._breaker = weakref.ref(breaker)
        elif self._breaker() is not breaker:
            return False
        self.permit = permit
        return True

    def take_permit(self) -> Permit | None:
        """The permit to settle, once: only that of a closed phase is for many blocks.

        Requires the breaker's lock.
        """
        permit = self.permit
        if not isinstance(permit, Closed):
            self.permit = NOT_ENTERED
        return None if permit is NOT_ENTERED else permit

    async def leave(
        self,
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__aexit__` of the block."""
        if exc is None and self.permit.quiet:
            next(self._successes)
        else:
            self._settle(exc)

    def leave_sync(
        self,
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__exit__` of the block."""
        self._settle(exc)

    async def leave_unbound(
        self,
        breaker: "BreakerCore",
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__aexit__` as looked up on the class, for `contextlib.AsyncExitStack`."""
        self._settle_for(breaker, exc)

    def leave_unbound_sync(
        self,
        breaker: "BreakerCore",
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__exit__` as looked up on the class, for `contextlib.ExitStack`."""
        self._settle_for(breaker, exc)

    def _settle(self, exc: BaseException | None) -> None:
        if prepared_blocks:
            _forget(self)
        breaker = self._breaker() if self._breaker is not None else None
        if breaker is None:
            return
        permit = self.permit
        if exc is not None and isinstance(permit, Closed):
            breaker._settle_error(permit, exc)
        else:
            breaker._settle_block(self, exc)

    def _settle_for(self, breaker: "BreakerCore", exc: BaseException | None) -> None:
        if prepared_blocks:
            _forget(self)
        entered_here = self._breaker is not None and self._breaker() is breaker
        breaker._settle_block(self if entered_here else None, exc)


class BlockExit:
    """The descriptor behind `__aexit__`."""

    __slots__ = ()

    def __get__(
        self, breaker: "BreakerCore | None", owner: type
    ) -> "Callable[..., Coroutine[Any, Any, None]]":
        """The exit of the block that is about to be entered."""
        if breaker is not None:
            return breaker._machine.phase_memo or _block_to_enter(breaker).leave
        return _prepared(GuardedBlock(None, NOT_ENTERED)).leave_unbound


class BlockExitSync:
    """The descriptor behind `__exit__`."""

    __slots__ = ()

    def __get__(self, breaker: "BreakerCore | None", owner: type) -> "Callable[..., None]":
        """The exit of the block that is about to be entered."""
        if breaker is None:
            return _prepared(GuardedBlock(None, NOT_ENTERED)).leave_unbound_sync
        leave = breaker._machine.phase_memo
        block = _block_to_enter(breaker) if leave is None else leave.__self__
        return block.leave_sync


def _block_to_enter(breaker: "BreakerCore") -> GuardedBlock:
    """The block of the phase where it is shared, else one prepared for this thread's enter."""
    machine = breaker._machine
    with breaker._mutex:
        phase = machine.phase
        hands_out = isinstance(phase, Closed) and machine.permits is not NO_PERMITS
        refuses_all = isinstance(phase, Open) and machine.mode is None
        if hands_out or refuses_all:
            block = GuardedBlock(breaker, phase if isinstance(phase, Closed) else NOT_ENTERED)
            machine.phase_memo = block.leave
            prepared_blocks.pop(get_ident(), None)
            return block
    return _prepared(GuardedBlock(breaker, NOT_ENTERED))


def _prepared(block: GuardedBlock) -> GuardedBlock:
    prepared_blocks[get_ident()] = block
    return block


def _forget(block: GuardedBlock) -> None:
    """Keep a block whose exit was called from being entered afterwards."""
    thread = get_ident()
    if prepared_blocks.get(thread) is block:
        del prepared_blocks[thread]
