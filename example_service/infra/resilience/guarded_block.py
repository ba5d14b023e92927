"""`async with breaker` and `with breaker`: how each exit finds its own admission.

Blocks of one breaker nest, overlap in hundreds of tasks, and may be left in another task than the
one that entered them. So neither the breaker nor a context variable can keep the permit. But a
`with` statement looks up the exit method *before* it calls the enter method (PEP 343 and PEP 492
specify that order, and `contextlib.ExitStack` keeps it). `BlockExit` is a descriptor. At that
lookup it returns an exit bound to a `GuardedBlock` of its own, and the enter that follows in the
same thread puts the permit into that block.

While the circuit is closed, the permit is the closed period itself, the same for every call. So all
calls share one block and nothing is prepared. While the circuit is open no block is entered, and
they share one, too, which stays without a permit.

A lookup may not be followed by an enter (`hasattr`, `inspect.getmembers`). Its block is then freed
together with the exit that it was bound to, or dropped at the next lookup.

What this cannot pair (enter and exit called by name, or another thread that changes the state
between lookup and enter) goes through `Guard.unclaimed`: an enter without a block leaves its permit
there. An exit without a permit, or with that of a closed period that is over, takes one from there.
It prefers the probe of its own context: with the probe of another call, each would end the other's.
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

# Blocks whose exit was looked up and whose enter has not come yet, by thread. An enter follows its
# lookup at once, so a thread never has more than one.
prepared_blocks: "dict[int, weakref.ref[GuardedBlock]]" = {}

# A permit like any other, so that the exit of every block can look at its attributes.
NOT_ENTERED = timed_call(STALE, 0.0)


class GuardedBlock:
    """One guarded block, or all those of one closed period.

    Args:
        guard: The guard to hand the permit back to. None until the block is entered, if the exit
            was looked up on the class.
        permit: The permit to hand back; `NOT_ENTERED` until the block is entered.
        is_shared: Whether the guard remembers this block. It is then held weakly, so that it is
            freed with its last reference; a block that outlives it has nothing to report to.
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
        # A block that was dropped without being left, with its exit stack or its suspended frame,
        # says nothing about the dependency; its place becomes free.
        permit = self.permit
        if (
            permit is not NOT_ENTERED
            and permit.__class__ is not Closed
            and (guard := self.guard) is not None
        ):
            guard.release(permit)

    @property
    def guard(self) -> Guard | None:
        """The guard to hand the permit back to; None if it is not known yet, or freed."""
        guard = self._guard
        return guard() if isinstance(guard, weakref.ref) else guard

    def enter(self, guard: Guard, permit: Permit) -> bool:
        """Take the permit of the enter that belongs to this block's exit.

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
        """The permit to hand back, once: only that of a closed period serves many blocks.

        Requires the guard's lock.
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
        """`__aexit__` as looked up on the class, for `contextlib.AsyncExitStack`."""
        self._settle_for(guard, exc)

    def leave_unbound_sync(
        self,
        guard: Guard,
        exc_type: type[BaseException] | None,  # noqa: ARG002
        exc: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """`__exit__` as looked up on the class, for `contextlib.ExitStack`."""
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
    """Admit a block whose permit the shared short cut does not cover.

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
    # Only the outcome of a probe depends on who hands it back.
    own = [one for one in unclaimed if not isinstance(one.phase, HalfOpen) or is_marked(one)]
    if own or (unclaimed and permit is None):
        claimed = (own or unclaimed)[-1]
        guard.unclaimed = [one for one in unclaimed if one is not claimed] or None
        return claimed
    if permit is not None:
        return permit
    return phase if isinstance(phase, Closed) else STALE


def _block_for_next_enter(guard: Guard) -> GuardedBlock:
    """The block of the period if its calls share one, else one for this thread's next enter."""
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
    """Keep a block whose exit was called from being entered afterwards."""
    thread = get_ident()
    prepared = prepared_blocks.get(thread)
    if prepared is not None and prepared() is block:
        del prepared_blocks[thread]
