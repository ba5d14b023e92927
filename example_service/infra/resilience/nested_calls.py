"""One call that passes the same breaker twice is one call.

A guarded function may be called inside a guarded block of the same breaker. While the circuit is
closed, both take a permit independently, so a success costs nothing extra. Two things prevent such
a call from counting twice where it matters:

- A failure is marked on its exception. A guard does not count an exception that another guard of
  its breaker has counted, and that has only been passed on or translated since.
- A probe is marked in the context. A call inside it runs under the probe's permit.

With `slow_call_duration` a guarded block is marked in the context, too, so that a call inside it
becomes overdue together with the block. A guarded function is not, because that would cost it a
third of its time.
"""

import sys
from collections.abc import Container
from contextvars import ContextVar
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any

from example_service.infra.resilience.rules.phases import STALE, HalfOpen, Permit, Phase, TimedCall

# A key in the dictionary of an exception. As an attribute it would meet the `__getattr__` of those
# that pass it on to something else, and the `__setattr__` of frozen ones.
_MARK = "_counted_by_circuit_breakers"
_RAISE = opmap["RAISE_VARARGS"]
_LONGEST_CHAIN = 10
_FUTURES = "concurrent.futures._base"

_marked: ContextVar[tuple[TimedCall, ...]] = ContextVar("calls_of_circuit_breakers", default=())

marked_calls = _marked.get
"""The calls that the current context runs under, perhaps with some that have ended."""


def mark_call(call: TimedCall) -> None:
    """Mark the current context as running under a call."""
    marked = marked_calls()
    if marked:
        marked = tuple([one for one in marked if one.phase is not STALE])
    _marked.set((*marked, call))


def mark_probe(permit: Permit) -> None:
    """Mark the current context as running under a probe, if the permit is that of a probe."""
    if isinstance(permit, TimedCall) and isinstance(permit.phase, HalfOpen):
        mark_call(permit)


def unmark_call(permit: Permit) -> None:
    """Remove the mark: the call has ended, or continues outside the current context."""
    marked = marked_calls()
    if permit in marked:
        _marked.set(tuple([one for one in marked if one is not permit]))


def outer_call(running: Container[TimedCall], phase: Phase) -> TimedCall | None:
    """The outermost of the calls `running` in this period that the current context runs under."""
    for call in marked_calls():
        if call.phase is phase and call in running:
            return call
    return None


def outer_probe(phase: HalfOpen) -> TimedCall | None:
    """The innermost running call of this half-open period that the current context runs under."""
    return next((one for one in reversed(marked_calls()) if one.phase is phase), None)


def is_marked(call: TimedCall) -> bool:
    """Whether the current context runs under this probe."""
    return call in marked_calls()


def count_once(error: BaseException, breaker: object) -> bool:
    """Mark an exception as counted by a breaker.

    Returns:
        False if the breaker has counted it already, within the call that ends now. An exception
        object that is raised again, as mocks do, is a failure of its own.
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
    """Where each breaker's count of an exception happened, by the identity of the breaker.

    It belongs to the exception, so that it lives as long, and stays behind in its copies.
    """

    def __reduce__(self) -> tuple[type["_Marks"], tuple[()]]:
        return _Marks, ()


def _was_passed_on(traceback: TracebackType | None, marked: TracebackType | None) -> bool:
    """Whether an exception has only travelled up since its traceback began with `marked`.

    An exception object that is raised again starts with its old traceback, below the frame that
    raises it. A frame that passes it on by `raise error` has caught it, so it stands there twice.
    What leaves a context manager made from a generator has the traceback with which it came in,
    which is a part of `marked`. An executor's future raises again what ended the call in it; that
    is passing on, too, unless it has raised it before it was counted. So is raising an exception
    that was collected before, as `asyncio.gather` does.
    """
    known = _entries(marked)
    is_of_call = not any(_is_future(one) for one in known)
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
    """Whether an exception, raised again in `frames`, was collected there from calls that ended.

    If the frame that it reached last is still running, further calls follow the one that it ended.
    If the same code has raised it before, as a mock does, it has ended another call of that kind.
    """
    if traceback is None or _is_on_stack(traceback.tb_frame):
        return False
    raised = {one.f_code for one in frames if one.f_globals.get("__package__") != __package__}
    return raised.isdisjoint(one.tb_frame.f_code for one in _entries(traceback))


def _is_on_stack(frame: FrameType) -> bool:
    running: FrameType | None = sys._getframe()  # noqa: SLF001 - It is documented.
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
    """The exceptions in a group that a breaker has not counted one by one; None for none."""

    def is_counted(error: BaseException) -> bool:
        return not isinstance(error, BaseExceptionGroup) and _is_counted(error, breaker)

    return group.split(is_counted)[1]


def _translates_counted(error: BaseException, breaker: object, links: int = _LONGEST_CHAIN) -> bool:
    """Whether an exception replaces one that the breaker counted within the call that ends now.

    It may do so in several steps: a library translates the error of a driver, and its caller that
    of the library.
    """
    cause, context = error.__cause__, error.__context__
    for link in (cause, context if context is not cause else None):
        if link is None or not links:
            continue
        if not (_is_counted(link, breaker) or _translates_counted(link, breaker, links - 1)):
            continue
        # It was caught in a frame inside this call, which then raised another exception.
        caught, frames = link.__traceback__, [one.tb_frame for one in _entries(error.__traceback__)]
        # The block's own frame may have caught it before the block began.
        if caught is not None and caught.tb_frame in (frames if link is cause else frames[1:]):
            return True
    return False


def _is_counted(error: BaseException, breaker: object) -> bool:
    """Whether a breaker has counted an exception, which was only passed on since."""
    marks: _Marks | None = error.__dict__.get(_MARK)
    return marks is not None and _was_passed_on(error.__traceback__, marks.get(id(breaker)))
