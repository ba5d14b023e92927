"""The timeline: the latest changes of state, and what operators have ordered."""

from collections.abc import Iterable
from math import inf, isclose
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias

from example_service.api.breakers.views import Transition
from example_service.api.dashboard.history import epoch
from example_service.infra.resilience import Order

Entry: TypeAlias = dict[str, Any]
"""A change of state or an order. The times in it are in seconds since the epoch."""

_SAME_MOMENT_SECONDS: Final = 2.0


def timeline(transitions: Iterable[Transition], orders: Iterable[Order], now: float) -> list[Entry]:
    """Return the entries of the timeline, newest first.

    A mode whose time is over gets a separate entry. A change of state that an order has caused
    gets none, because the order has one; with several workers there would be one for each.

    Args:
        transitions: The latest changes of state in all workers.
        orders: The latest orders, once for each worker that carried them out.
        now: The time in seconds since the epoch.
    """
    ordered = _each_once(orders)
    entries = [
        _of_transition(transition)
        for transition in transitions
        if not _is_caused_by_order(transition, ordered)
    ]
    next_of: dict[str, float] = {}
    for order in ordered:
        at = order.at.timestamp()
        ends_at = None if order.seconds is None else at + order.seconds
        if ends_at is not None and ends_at <= min(now, next_of.get(order.name, now)):
            entries.append(_entry(order, ends_at, "ended", "Its time is over.", None))
        next_of[order.name] = at
        what = "reset" if order.mode is None else "set"
        entries.append(_entry(order, at, what, order.reason, ends_at))
    return sorted(entries, key=itemgetter("at"), reverse=True)


def _each_once(orders: Iterable[Order]) -> list[Order]:
    """Return the orders of all workers, newest first, at the time at which the first obeyed.

    A worker that starts later carries out an order whose mode still applies. That is the same order
    if it has the same reason and the same end.
    """
    latest: dict[str, Order] = {}
    once = []
    for order in sorted(orders, key=attrgetter("at")):
        before = latest.get(order.name)
        if before is None or not _is_same(order, before):
            latest[order.name] = order
            once.append(order)
    return once[::-1]


def _is_same(order: Order, before: Order) -> bool:
    return (order.mode, order.reason) == (before.mode, before.reason) and isclose(
        _end_of(order), _end_of(before), rel_tol=0, abs_tol=_SAME_MOMENT_SECONDS
    )


def _end_of(order: Order) -> float:
    """Return when the mode ends: infinity without an end. A reset has no duration."""
    if order.mode is not None and order.seconds is None:
        return inf
    return order.at.timestamp() + (order.seconds or 0.0)


def _is_caused_by_order(transition: Transition, orders: Iterable[Order]) -> bool:
    if transition.caused_by != "operator":
        return False
    at = epoch(transition.at)
    return any(
        order.name == transition.breaker_name
        and abs(order.at.timestamp() - at) < _SAME_MOMENT_SECONDS
        for order in orders
    )


def _of_transition(transition: Transition) -> Entry:
    return {
        "at": epoch(transition.at),
        "worker": transition.worker,
        "name": transition.breaker_name,
        "from": transition.from_state.value,
        "to": transition.to_state.value,
        "reason": transition.reason,
        "causedBy": transition.caused_by,
        "wait": transition.wait_seconds,
    }


def _entry(order: Order, at: float, what: str, reason: str, until: float | None) -> Entry:
    return {
        "at": at,
        "name": order.name,
        "order": what,
        "mode": None if order.mode is None else order.mode.value,
        "reason": reason,
        "until": until,
    }
