"""Calls listeners. One that raises affects neither the call nor other listeners."""

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitListener,
    Event,
    StateChanged,
)

logger = logging.getLogger("example_service.infra.resilience")

HOOKS = ("on_state_change", "on_success", "on_failure", "on_rejection")


class Listeners:
    """The hooks of a breaker's listeners, sorted by event.

    Args:
        given: Objects with one or more of the four hook methods.

    Raises:
        TypeError: An object has none of the hooks, or a hook is a coroutine function.
    """

    __slots__ = ("_failed", "given", "on_failure", "on_rejection", "on_state_change", "on_success")

    def __init__(self, given: Iterable[CircuitListener]) -> None:
        try:
            self.given = tuple(given)
        except TypeError:
            raise TypeError(f"listeners must be an iterable, not {given!r}") from None
        self.on_state_change: tuple[Callable[[StateChanged], None], ...] = self._hooks(
            "on_state_change"
        )
        self.on_success: tuple[Callable[[CallSucceeded], None], ...] = self._hooks("on_success")
        self.on_failure: tuple[Callable[[CallFailed], None], ...] = self._hooks("on_failure")
        self.on_rejection: tuple[Callable[[CallRejected], None], ...] = self._hooks("on_rejection")
        for listener in self.given:
            if isinstance(listener, type) or not any(hasattr(listener, hook) for hook in HOOKS):
                raise TypeError(f"listeners must be objects with {HOOKS}, not {listener!r}")
        for hook in (*self.on_state_change, *self.on_success, *self.on_failure, *self.on_rejection):
            if inspect.iscoroutinefunction(hook):
                raise TypeError(
                    f"listeners are not awaited, so {hook!r} must be a plain function; it may "
                    "start a task"
                )
        # By identity: a hook need not be hashable.
        self._failed: set[int] = set()

    def _hooks(self, name: str) -> tuple[Callable[[Any], None], ...]:
        return tuple(getattr(listener, name) for listener in self.given if hasattr(listener, name))

    def notify(self, event: Event) -> None:
        """Call each hook for an event. The first error of a hook is logged."""
        for hook in self._hooks_for(event):
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001 - A listener must not break the call.
                self.log_once(hook, event, error)

    def log_once(self, hook: Callable[[Any], None], event: Event, error: Exception) -> None:
        """Log the first error of a hook."""
        if id(hook) not in self._failed:
            self._failed.add(id(hook))
            logger.error(
                "Listener %r of circuit breaker %r raised; this is logged only once",
                getattr(hook, "__qualname__", hook),
                event.breaker_name,
                exc_info=error,
                extra={"breaker": event.breaker_name},
            )

    def _hooks_for(self, event: Event) -> tuple[Callable[[Any], None], ...]:
        if isinstance(event, StateChanged):
            return self.on_state_change
        if isinstance(event, CallSucceeded):
            return self.on_success
        if isinstance(event, CallFailed):
            return self.on_failure
        return self.on_rejection
