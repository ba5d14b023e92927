"""A call that passes the same breaker twice counts once.

A guarded function may be called inside a guarded block of the same breaker. While the circuit is
closed, each of them takes a permit, so a success costs nothing extra. Two marks prevent such a call
from counting twice where it matters:

- A failure is marked on its exception. If the exception is passed on or translated and reaches the
  same breaker again, it is not counted again.
- A probe is marked in the context. A call inside it is part of the probe.

With `slow_call_duration` a guarded block is marked in the context, too, so that a hanging call
inside it counts only once. A guarded function is not marked, because that would make it a third
slower.
"""

import sys
from collections.abc import Container
from contextvars import ContextVar
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any

from example_service.infra.resilience.exceptions import MAX_CHAIN
from example_service.infra.resilience.rules.phases import STALE, HalfOpen, Permit, Phase, TimedCall

# A key in the `__dict__` of an exception. An attribute would involve the `__setattr__` of frozen
# exceptions, and the `__getattr__` of those that delegate to another object.
_MARK = "_counted_by_circuit_breakers"
_RAISE = opmap["RAISE_VARARGS"]
_FUTURES = "concurrent.futures._base"

_marked: ContextVar[tuple[TimedCall, ...]] = ContextVar("calls_of_circuit_breakers", default=())

marked_calls = _marked.get
"""The calls inside which the current context runs. Some of them may have ended."""


def mark_call(call: TimedCall) -> None:
    """Mark the current context as running inside a call."""
    marked = marked_calls()
    if marked:
        marked = tuple([call for call in marked if call.phase is not STALE])
    _marked.set((*marked, call))


def mark_probe(permit: Permit) -> None:
    """Mark the current context as running inside this call, if it is a probe."""
    if isinstance(permit, TimedCall) and isinstance(permit.phase, HalfOpen):
        mark_call(permit)


def unmark_call(permit: Permit) -> None:
    """Remove the mark, because the call has ended or continues outside the context."""
    marked = marked_calls()
    if permit in marked:
        _marked.set(tuple([call for call in marked if call is not permit]))


def outer_call(running: Container[TimedCall], phase: Phase) -> TimedCall | None:
    """The outermost running call of this period inside which the current context runs, if any."""
    for call in marked_calls():
        if call.phase is phase and call in running:
            return call
    return None


def outer_probe(phase: HalfOpen) -> TimedCall | None:
    """The innermost probe of this period inside which the current context runs, if any."""
    return next((call for call in reversed(marked_calls()) if call.phase is phase), None)


def is_marked(call: TimedCall) -> bool:
    """Whether the current context runs inside this call."""
    return call in marked_calls()


def count_once(error: BaseException, breaker: object) -> bool:
    """Mark an exception as counted by a breaker.

    Returns:
        False if the breaker has counted it already inside the call that ends now. An exception
        object that a later call raises again, as mocks do, is a new failure.
    """
    traceback = error.__traceback__
    marks: _Marks | None = error.__dict__.get(_MARK)
    if marks is None:
        marks = error.__dict__[_MARK] = _Marks()
    elif _was_passed_on(traceback, marks.get(id(breaker))):
        return False
    marks[id(breaker)] = traceback
    if error.__context__ is None and error.__cause__ is None:
        return True
    return not _translates_counted(error, breaker)


class _Marks(dict[int, TracebackType | None]):
    """The traceback with which each breaker counted an exception, by the `id` of the breaker.

    It is stored on the exception and lives as long. Copies of the exception get an empty one.
    """

    def __reduce__(self) -> tuple[type["_Marks"], tuple[()]]:
        return _Marks, ()


def _was_passed_on(traceback: TracebackType | None, marked: TracebackType | None) -> bool:
    """Whether an exception was only passed on since a breaker counted it.

    Passed on means the same call. Raised again means another call, as with a mock that raises one
    exception object for every call. The traceback distinguishes the two:

    - An exception on its way up gets new entries above those in `marked`.
    - `raise error` in a frame that caught the error passes it on. The frame is then in the
      traceback twice.
    - A context manager made from a generator resets the traceback to what came in, a part of
      `marked`.
    - The future of an executor raises the exception of its call. That is passing on, unless it was
      counted after the future had raised it.
    - Raising an exception that was collected before, as `asyncio.gather` does, is passing on.

    Args:
        traceback: The traceback of the exception now.
        marked: Its traceback when the breaker counted it; None if it did not.
    """
    known = _entries(marked)
    is_of_call = not any(_is_future(entry) for entry in known)
    frames: list[FrameType] = []
    while traceback is not None and known:
        if traceback in known:
            return True
        frames.append(traceback.tb_frame)
        below = traceback.tb_next
        instruction = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
        is_again = below in known or (below is not None and below.tb_frame not in frames)
        if instruction == _RAISE and is_again and not (is_of_call and _is_future(traceback)):
            return known[0] in _entries(below) and _was_collected(below, frames)
        traceback = below
    return False


def _was_collected(traceback: TracebackType | None, frames: list[FrameType]) -> bool:
    """Whether `frames` collected an exception from a call that had ended, and now raise it.

    It was not if the frame that it reached last is still running, because that frame makes further
    calls. Nor was it if the same code raised it before, as a mock does for every call.
    """
    if traceback is None or _is_on_stack(traceback.tb_frame):
        return False
    raised = {frame.f_code for frame in frames if frame.f_globals.get("__package__") != __package__}
    return raised.isdisjoint(entry.tb_frame.f_code for entry in _entries(traceback))


def _is_on_stack(frame: FrameType) -> bool:
    running: FrameType | None = sys._getframe()  # noqa: SLF001 - A documented function.
    while running is not None and running is not frame:
        running = running.f_back
    return running is frame


def _entries(traceback: TracebackType | None) -> list[TracebackType]:
    """All entries of a traceback."""
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    return entries


def _is_future(traceback: TracebackType) -> bool:
    """Whether an exception came out of an executor's future here."""
    return traceback.tb_frame.f_globals.get("__name__") == _FUTURES


def without_counted(
    group: BaseExceptionGroup[Any], breaker: object
) -> BaseExceptionGroup[Any] | None:
    """The group without the exceptions that a breaker has counted; None if none is left."""

    def is_counted(error: BaseException) -> bool:
        return not isinstance(error, BaseExceptionGroup) and _is_counted(error, breaker)

    return group.split(is_counted)[1]


def _translates_counted(error: BaseException, breaker: object, links: int = MAX_CHAIN) -> bool:
    """Whether an exception replaces one that the breaker counted inside the call that ends now.

    There may be several steps: a library translates an error of the driver, and its caller
    translates that error again.
    """
    cause, context = error.__cause__, error.__context__
    for link in (cause, context if context is not cause else None):
        if link is None or not links:
            continue
        if not (_is_counted(link, breaker) or _translates_counted(link, breaker, links - 1)):
            continue
        # It was caught in a frame inside this call, which then raised another exception.
        caught = link.__traceback__
        frames = [entry.tb_frame for entry in _entries(error.__traceback__)]
        # The block's own frame may have caught it before the block began.
        if caught is not None and caught.tb_frame in (frames if link is cause else frames[1:]):
            return True
    return False


def _is_counted(error: BaseException, breaker: object) -> bool:
    """Whether a breaker has counted an exception that was only passed on since."""
    marks: _Marks | None = error.__dict__.get(_MARK)
    return marks is not None and _was_passed_on(error.__traceback__, marks.get(id(breaker)))
