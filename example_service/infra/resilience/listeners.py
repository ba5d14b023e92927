"""Telling listeners what happened, without letting them do harm."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from example_service.infra.resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CircuitListener,
    Event,
    FailureListener,
    RejectionListener,
    StateChanged,
    StateChangeListener,
    SuccessListener,
)

logger = logging.getLogger("example_service.infra.resilience")

EventT = TypeVar("EventT", bound=Event)


class Listeners:
    """The hooks of a breaker's listeners, sorted by event.

    Args:
        given: Objects with one or more of the four hook methods.

    Raises:
        TypeError: One of them has none of the hooks.
    """

    __slots__ = ("_failed", "given", "on_failure", "on_rejection", "on_state_change", "on_success")

    def __init__(self, given: Iterable[CircuitListener]) -> None:
        self.given = tuple(given)
        for listener in self.given:
            if isinstance(listener, type) or not isinstance(listener, CircuitListener):
                raise TypeError(
                    "listeners must be objects with on_state_change, on_success, on_failure or "
                    f"on_rejection, not {listener!r}"
                )
        self.on_state_change: tuple[Callable[[StateChanged], None], ...] = tuple(
            one.on_state_change for one in self.given if isinstance(one, StateChangeListener)
        )
        self.on_success: tuple[Callable[[CallSucceeded], None], ...] = tuple(
            one.on_success for one in self.given if isinstance(one, SuccessListener)
        )
        self.on_failure: tuple[Callable[[CallFailed], None], ...] = tuple(
            one.on_failure for one in self.given if isinstance(one, FailureListener)
        )
        self.on_rejection: tuple[Callable[[CallRejected], None], ...] = tuple(
            one.on_rejection for one in self.given if isinstance(one, RejectionListener)
        )
        self._failed: set[object] = set()

    def tell(self, hooks: Iterable[Callable[[EventT], None]], event: EventT) -> None:
        """Hand an event to each hook; a hook that raises is logged the first time."""
        for hook in hooks:
            try:
                hook(event)
            except Exception:
                if hook not in self._failed:
                    self._failed.add(hook)
                    logger.exception(
                        "Listener %r of circuit breaker '%s' raised; it is logged only once",
                        getattr(hook, "__qualname__", hook),
                        event.breaker_name,
                        extra={"breaker": event.breaker_name},
                    )
