"""`async with breaker` and `with breaker`: how each exit finds its own permit.

Blocks of one breaker nest, overlap in hundreds of tasks, and may be left in a different task than
the one that entered them. So neither the breaker nor a context variable can keep the permit. But a
`with` statement looks up the exit method *before* it calls the enter method (PEP 343 and PEP 492
specify that order, and `contextlib.ExitStack` keeps it). `BlockExit` is a descriptor: each lookup
prepares a new `GuardedBlock` and returns its exit method. The enter that follows in the same thread
stores the permit in that block.

While the circuit is closed, all calls have the same permit, the closed period. So they share one
block, and nothing is prepared. While the circuit is open no block is entered, so they also share
one block, which has no permit.

Some lookups are not followed by an enter (`hasattr`, `inspect.getmembers`). Their block is freed
together with the exit method, or dropped at the next lookup.

Some enters and exits cannot be paired in this way: those called by name, and those around a state
change by another thread between lookup and enter. They use `Guard.unclaimed`. An enter without a
block leaves its permit there. An exit without a permit, or with the permit of an earlier closed
period, takes one from there, and prefers the probe of its own context. Otherwise two probes could
each end the other.
"""

import weakref
from collections.abc import Callable, Coroutine, Iterator
from threading import get_ident
from types import TracebackType
from typing import Any

from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.nested_calls import is_marked, mark_call, unmark_call
from example_service.infra.resilience.rules.lockfree import EMPTY
from example_service.infra.resilience.rules.phases import (
    STALE,
    Closed,
    HalfOpen,
    Open,
    Permit,
    TimedCall,
    timed_call,
)

# Blocks between the lookup of their exit and their enter, by thread. One per thread is enough,
# because an enter follows its lookup immediately.
prepared_blocks: "dict[int, weakref.ref[GuardedBlock]]" = {}

# A permit instead of None, so that an exit can read `counts_only` without a check.
NOT_ENTERED = timed_call(STALE, 0.0)


class GuardedBlock:
    """One guarded block, or all blocks of one closed period.

    Args:
        guard: The guard to hand the permit back to. None until the block is entered, if the exit
            was looked up on the class.
        permit: The permit to hand back; `NOT_ENTERED` until the block is entered.
        is_shared: Whether the guard refers to this block. The block then has only a weak reference
            to the guard, so that the two do not keep each other alive.
    """

    __slots__ = ("__weakref__", "_guard", "_successes", "permit")

    def __init__(self, guard: Guard | None, permit: Permit, *, is_shared: bool = False) -> None:
        self._guard: Guard | weakref.ref[Guard] | None = guard
        self._successes: Iterator[None]
        self.permit = permit
        if guard is not None:
            self._successes = guard.machine.successes
            if is_shared:
                self._guard = weakref.ref(guard)

    def __del__(self) -> None:
        # The block was never left: its exit stack or its suspended frame was dropped. That is
        # neutral, and frees its probe slot.
        permit = self.permit
        if (
            permit is not NOT_ENTERED
            and permit.__class__ is not Closed
            and (guard := self.guard) is not None
        ):
            guard.release(permit)

    @property
    def guard(self) -> Guard | None:
        """The guard to hand the permit back to; None before the block is entered, or if freed."""
        guard = self._guard
        return guard() if isinstance(guard, weakref.ref) else guard

    def enter(self, guard: Guard, permit: Permit) -> bool:
        """Store the permit with which the block was entered.

        Returns:
            False if the block was prepared for another guard.
        """
        if self._guard is None:
            self._guard = guard
        elif self.guard is not guard:
            return False
        self.permit = permit
        return True

    def take_permit(self) -> Permit | None:
        """Return the permit to hand back; None if there is none, or if it was taken before.

        The permit of a closed period may be taken any number of times. Requires the guard's lock.
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
        if exc is None and self.permit.counts_only:
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
        guard: Guard,
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__aexit__` when looked up on the class, as `contextlib.AsyncExitStack` does."""
        self._settle_for(guard, exc)

    def leave_unbound_sync(
        self,
        guard: Guard,
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__exit__` when looked up on the class, as `contextlib.ExitStack` does."""
        self._settle_for(guard, exc)

    def _settle(self, exc: BaseException | None) -> None:
        if prepared_blocks:
            _forget(self)
        if (guard := self.guard) is not None:
            _settle_block(guard, self, exc)

    def _settle_for(self, guard: Guard, exc: BaseException | None) -> None:
        if prepared_blocks:
            _forget(self)
        _settle_block(guard, self if self.guard is guard else None, exc)


class BlockExit:
    """The descriptor behind `__aexit__`."""

    __slots__ = ()

    def __get__(self, guard: Guard | None, owner: type) -> Callable[..., Coroutine[Any, Any, None]]:
        """The exit of the block that is about to be entered."""
        if guard is None:
            return _prepared(GuardedBlock(None, NOT_ENTERED)).leave_unbound
        if prepared_blocks:
            prepared_blocks.pop(get_ident(), None)
        leave: Callable[..., Coroutine[Any, Any, None]] = (
            guard.machine.shared_exit or _block_for_next_enter(guard).leave
        )
        return leave


class BlockExitSync:
    """The descriptor behind `__exit__`."""

    __slots__ = ()

    def __get__(self, guard: Guard | None, owner: type) -> Callable[..., None]:
        """The exit of the block that is about to be entered."""
        if guard is None:
            return _prepared(GuardedBlock(None, NOT_ENTERED)).leave_unbound_sync
        if prepared_blocks:
            prepared_blocks.pop(get_ident(), None)
        leave = guard.machine.shared_exit
        block: GuardedBlock = _block_for_next_enter(guard) if leave is None else leave.__self__
        return block.leave_sync


def enter_block(guard: Guard) -> None:
    """Enter a block when `machine.permits` yields no permit, or when a block was prepared.

    Raises:
        CircuitOpenError: The circuit refuses; the block does not run.
    """
    prepared = prepared_blocks.pop(get_ident(), None) if prepared_blocks else None
    block = None if prepared is None else prepared()
    permit: Permit | None = next(guard.machine.permits, None)
    if permit is None:
        permit = guard.admit()
    if isinstance(permit, Closed):
        if block is not None:
            block.enter(guard, permit)
        return
    if isinstance(permit.phase, Closed) and guard.machine.running is not None:
        guard.machine.has_blocks = True
        mark_call(permit)
    if block is None or not block.enter(guard, permit):
        with guard.mutex:
            guard.unclaimed = [*(guard.unclaimed or ()), permit]


def _settle_block(guard: Guard, block: GuardedBlock | None, exc: BaseException | None) -> None:
    """Hand back the permit of a block that ended."""
    permit = block.permit if block is not None else None
    if guard.unclaimed or not isinstance(permit, Closed):
        with guard.mutex:
            permit = _permit_of(guard, block)
        if guard.machine.has_blocks:
            unmark_call(permit)
    guard.settle(permit, exc)


def _permit_of(guard: Guard, block: GuardedBlock | None) -> Permit:
    """The permit of a block that ended. Requires the guard's lock."""
    phase = guard.machine.phase
    permit = block.take_permit() if block is not None else None
    if permit is phase or isinstance(permit, TimedCall):
        return permit
    unclaimed = guard.unclaimed or []
    # Other permits are interchangeable, but a probe must end with its own outcome.
    own = [call for call in unclaimed if not isinstance(call.phase, HalfOpen) or is_marked(call)]
    if own or (unclaimed and permit is None):
        claimed = (own or unclaimed)[-1]
        guard.unclaimed = [call for call in unclaimed if call is not claimed] or None
        return claimed
    if permit is not None:
        return permit
    return phase if isinstance(phase, Closed) else STALE


def _block_for_next_enter(guard: Guard) -> GuardedBlock:
    """The block that the calls of this period share, or a new one for the next enter."""
    machine = guard.machine
    if machine.is_timed and isinstance(machine.phase, Closed):
        return _prepared(GuardedBlock(guard, NOT_ENTERED))
    with guard.mutex:
        phase = machine.phase
        is_shared = isinstance(phase, Closed) and machine.permits is not EMPTY
        refuses_all = isinstance(phase, Open) and machine.mode is None
        if is_shared or refuses_all:
            permit = phase if isinstance(phase, Closed) else NOT_ENTERED
            block = GuardedBlock(guard, permit, is_shared=True)
            machine.shared_exit = block.leave
            return block
    return _prepared(GuardedBlock(guard, NOT_ENTERED))


def _prepared(block: GuardedBlock) -> GuardedBlock:
    prepared_blocks[get_ident()] = weakref.ref(block)
    return block


def _forget(block: GuardedBlock) -> None:
    """Drop a prepared block whose exit was called without an enter."""
    thread = get_ident()
    prepared = prepared_blocks.get(thread)
    if prepared is not None and prepared() is block:
        del prepared_blocks[thread]
