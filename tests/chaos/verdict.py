"""Compares the ledgers: was every accepted payment charged exactly once, or not at all?"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.chaos.ledgers import Answer, Charge, Ledgers, Order, Payment

_PAID: Final = 201
_DECLINED: Final = 402
_FAILED: Final = 502
_ENDS: Final[dict[int | None, tuple[str, str | None]]] = {
    _PAID: ("succeeded", None),
    _DECLINED: ("failed", "declined"),
    _FAILED: ("failed", "expired"),
}
"""The state of a payment after each final answer."""
_CONFLICT: Final = 409
_TRY_AGAIN: Final = frozenset({503, 504})
"""No database, an open circuit, too many requests, or the time limit of the request."""


class FaultKind(StrEnum):
    """The kinds of faults."""

    MISSING = "accepted, but not charged"
    FALSE_FAILURE = "failed, but charged"
    CHARGED_TWICE = "charged twice"
    NOT_ORDERED = "charged, but not ordered"
    WRONG_CHARGE = "charged with another amount, currency or customer"
    UNSETTLED = "without a final answer"
    TWO_PAYMENTS = "two payments for one key"
    CHARGED_AT_LAST = "charged for a repetition of a finished order"
    STRAY_PAYMENT = "a payment without an order"
    WRONG_PAYMENT = "a payment that differs from its order"
    TAKEN_BACK = "a final answer that changed"
    UNEXPECTED_ANSWER = "an answer outside the contract"
    HUNG = "a request beyond its time limit"
    LOG = "an unexpected line in the log"
    PROCESS = "a process that ended unexpectedly"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: The kind of fault.
        detail: Keys, IDs and numbers that show where to look.
    """

    kind: FaultKind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def judge(ledgers: Ledgers, limit_seconds: float) -> list[Fault]:
    """Find all faults.

    Args:
        ledgers: Everything that was recorded, after everything has settled.
        limit_seconds: The longest duration of a request as clients see it.
    """
    return [
        *_faults_of_requests(ledgers, limit_seconds),
        *_faults_of_orders(ledgers),
        *_faults_of_payments(ledgers),
        *_faults_of_charges(ledgers),
        *_faults_of_closing(ledgers),
    ]


def _faults_of_requests(ledgers: Ledgers, limit_seconds: float) -> Iterator[Fault]:
    for answer in (*ledgers.answers, *ledgers.closing_answers.values()):
        if answer.seconds >= limit_seconds:
            yield Fault(FaultKind.HUNG, f"{answer.seconds:.2f} s, {answer}")
        if answer.status is not None and answer.status not in _TRY_AGAIN | _expected(
            ledgers.orders[answer.key], answer
        ):
            yield Fault(FaultKind.UNEXPECTED_ANSWER, str(answer))


def _expected(order: Order, answer: Answer) -> frozenset[int]:
    if answer.is_altered:
        return frozenset({_CONFLICT})
    return frozenset({202, _FAILED, _DECLINED if order.is_declined else _PAID})


def _faults_of_orders(ledgers: Ledgers) -> Iterator[Fault]:
    """Compare the clients' answers with their payments."""
    payments = {payment.id: payment for payment in ledgers.payments}
    charged = {charge.customer_id for charge in ledgers.charges}
    answers = defaultdict(list)
    for answer in ledgers.answers:
        if not answer.is_altered:
            answers[answer.key].append(answer)
    for order in ledgers.orders.values():
        closing = ledgers.closing_answers.get(order.key)
        if closing is None or closing.status not in _ENDS:
            yield Fault(FaultKind.UNSETTLED, f"{order}, at last {closing}")
        given = [*answers[order.key], *([] if closing is None else [closing])]
        ids = {answer.payment_id for answer in given if answer.payment_id is not None}
        if len(ids) > 1:
            yield Fault(FaultKind.TWO_PAYMENTS, f"{order}, {sorted(ids)}")
        if len({a.status for a in given if a.status in _ENDS}) > 1:
            yield Fault(FaultKind.TAKEN_BACK, f"{order}, {given}")
        for payment_id in ids:
            yield from _faults_of_order(order, payments.get(payment_id), closing)
        failed = {
            payment_id
            for payment_id in ids
            if payment_id in payments and payments[payment_id].status == "failed"
        }
        if ids - failed and not order.is_declined and order.customer_id not in charged:
            yield Fault(FaultKind.MISSING, f"{order}, {sorted(ids)}")


def _faults_of_order(
    order: Order, payment: Payment | None, closing: Answer | None
) -> Iterator[Fault]:
    asked = (order.customer_id, order.amount, order.currency)
    end = _ENDS.get(closing.status) if closing is not None else None
    if payment is None or (
        (payment.customer_id, payment.amount, payment.currency) != asked
        or (end is not None and (payment.status, payment.failure_reason) != end)
    ):
        yield Fault(FaultKind.WRONG_PAYMENT, f"{order}, {closing}, {payment}")


def _faults_of_payments(ledgers: Ledgers) -> Iterator[Fault]:
    known = _payment_ids(ledgers)
    charged = {charge.idempotency_key for charge in ledgers.closing_charges}
    for payment in ledgers.payments:
        if payment.status == "failed" and payment.id in charged:
            yield Fault(FaultKind.FALSE_FAILURE, str(payment))
        if payment.id not in known:
            yield Fault(FaultKind.STRAY_PAYMENT, str(payment))
    for payment_id, count in Counter(payment.id for payment in ledgers.payments).items():
        if count > 1:
            yield Fault(FaultKind.STRAY_PAYMENT, f"{payment_id} is listed {count} times")


def _faults_of_charges(ledgers: Ledgers) -> Iterator[Fault]:
    """Compare the provider's final ledger with the orders; customers identify charges."""
    orders = {o.customer_id: o for o in ledgers.orders.values() if not o.is_declined}
    known = _payment_ids(ledgers)
    of_customers: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in ledgers.closing_charges:
        of_customers[charge.customer_id].append(charge)
    for customer_id, charges in of_customers.items():
        order = orders.get(customer_id)
        if order is None:
            yield from (Fault(FaultKind.NOT_ORDERED, str(charge)) for charge in charges)
            continue
        if sum(charge.times_charged for charge in charges) > 1:
            yield Fault(FaultKind.CHARGED_TWICE, f"{order}, {charges}")
        for charge in charges:
            if charge.idempotency_key not in known:
                yield Fault(FaultKind.NOT_ORDERED, str(charge))
            if (charge.amount, charge.currency) != (order.amount, order.currency):
                yield Fault(FaultKind.WRONG_CHARGE, f"{order}, {charge}")


def _faults_of_closing(ledgers: Ledgers) -> Iterator[Fault]:
    """Check that the last repetitions charged nothing, because every order was finished."""
    before = set(ledgers.charges)
    for charge in ledgers.closing_charges:
        if charge not in before:
            yield Fault(FaultKind.CHARGED_AT_LAST, str(charge))


def _payment_ids(ledgers: Ledgers) -> set[str]:
    """The payments in the clients' answers."""
    answers = (*ledgers.answers, *ledgers.closing_answers.values())
    return {answer.payment_id for answer in answers if answer.payment_id is not None}
