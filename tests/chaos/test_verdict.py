"""The verdict finds each kind of fault, and none in a good run."""

from dataclasses import replace

import pytest

from tests.chaos.ledgers import Answer, Charge, Ledgers, Order, Payment
from tests.chaos.verdict import FaultKind, judge

LIMIT_SECONDS = 7.0
PAID = Order(key="key-1", customer_id="customer-1", amount=1250, currency="EUR")
DECLINED = Order(key="key-2", customer_id="declined", amount=500, currency="JPY")


def answer(order: Order, status: int | None, payment_id: str | None = None) -> Answer:
    """An immediate answer."""
    return Answer(order.key, "request-1", status, 0.1, payment_id)


def payment(order: Order, payment_id: str) -> Payment:
    """The payment that an order should become."""
    return Payment(
        id=payment_id,
        status="failed" if order.is_declined else "succeeded",
        amount=order.amount,
        currency=order.currency,
        customer_id=order.customer_id,
        failure_reason="declined" if order.is_declined else None,
    )


CHARGE = Charge(
    idempotency_key="payment-1",
    amount=PAID.amount,
    currency=PAID.currency,
    customer_id=PAID.customer_id,
    times_charged=1,
)


@pytest.fixture
def ledgers() -> Ledgers:
    """The ledgers of two good orders: one was charged, one declined."""
    return Ledgers(
        orders={order.key: order for order in (PAID, DECLINED)},
        answers=[
            answer(PAID, None),
            answer(PAID, 503),
            answer(PAID, 202, "payment-1"),
            answer(DECLINED, 402, "payment-2"),
            replace(answer(PAID, 409), is_altered=True),
        ],
        closing_answers={
            PAID.key: answer(PAID, 201, "payment-1"),
            DECLINED.key: answer(DECLINED, 402, "payment-2"),
        },
        payments=[payment(PAID, "payment-1"), payment(DECLINED, "payment-2")],
        charges=[CHARGE],
        closing_charges=[CHARGE],
    )


def kinds(ledgers: Ledgers) -> list[FaultKind]:
    """The kinds of faults that were found, in order."""
    return [fault.kind for fault in judge(ledgers, LIMIT_SECONDS)]


def test_a_good_run_has_no_faults(ledgers: Ledgers) -> None:
    """Broken connections and 503 in between do not matter."""
    assert kinds(ledgers) == []


def test_an_accepted_payment_that_was_not_charged_is_missing(ledgers: Ledgers) -> None:
    """The provider's ledger decides, whatever the service reports."""
    ledgers.charges = ledgers.closing_charges = []

    assert kinds(ledgers) == [FaultKind.MISSING]


def test_a_payment_that_is_gone_is_missing(ledgers: Ledgers) -> None:
    """An order that was accepted with 202 must be in the database."""
    ledgers.payments = ledgers.payments[1:]
    ledgers.charges = ledgers.closing_charges = []

    assert kinds(ledgers) == [FaultKind.WRONG_PAYMENT, FaultKind.MISSING]


def test_money_that_moved_twice_for_one_key_is_found(ledgers: Ledgers) -> None:
    """The provider counts how often it charged a key."""
    ledgers.charges = ledgers.closing_charges = [CHARGE.model_copy(update={"times_charged": 2})]

    assert kinds(ledgers) == [FaultKind.CHARGED_TWICE]


def test_a_second_charge_with_another_key_is_found(ledgers: Ledgers) -> None:
    """The customer identifies it, even though no payment has its key."""
    another = CHARGE.model_copy(update={"idempotency_key": "another"})
    ledgers.charges = ledgers.closing_charges = [CHARGE, another]

    assert kinds(ledgers) == [FaultKind.CHARGED_TWICE, FaultKind.NOT_ORDERED]


def test_a_charge_of_another_amount_is_found(ledgers: Ledgers) -> None:
    """A charge must match its order."""
    ledgers.charges = ledgers.closing_charges = [CHARGE.model_copy(update={"amount": 1251})]

    assert kinds(ledgers) == [FaultKind.WRONG_CHARGE]


def test_a_charge_without_an_order_is_found(ledgers: Ledgers) -> None:
    """The customer of the charge is unknown or was declined."""
    ledgers.charges = ledgers.closing_charges = [
        CHARGE,
        CHARGE.model_copy(update={"customer_id": "stranger", "idempotency_key": "payment-3"}),
        CHARGE.model_copy(update={"customer_id": "declined", "idempotency_key": "payment-2"}),
    ]

    assert kinds(ledgers) == [FaultKind.FALSE_FAILURE, *[FaultKind.NOT_ORDERED] * 2]


def test_two_payments_for_one_key_are_found(ledgers: Ledgers) -> None:
    """Both are charged, and the second answer has another ID."""
    ledgers.answers.append(answer(PAID, 201, "payment-3"))
    ledgers.payments.append(payment(PAID, "payment-3"))
    another = CHARGE.model_copy(update={"idempotency_key": "payment-3"})
    ledgers.charges = ledgers.closing_charges = [CHARGE, another]

    assert kinds(ledgers) == [FaultKind.TWO_PAYMENTS, FaultKind.CHARGED_TWICE]


def test_a_payment_without_an_order_is_found(ledgers: Ledgers) -> None:
    """The service lists a payment that no client knows, and another one twice."""
    ledgers.payments += [payment(PAID, "payment-3"), payment(DECLINED, "payment-2")]

    assert kinds(ledgers) == [FaultKind.STRAY_PAYMENT] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"status": "pending"},
        {"amount": 1251},
        {"customer_id": "customer-2"},
    ],
)
def test_a_payment_that_differs_from_its_order_is_found(
    ledgers: Ledgers, change: dict[str, object]
) -> None:
    """It must be paid in the end and match what the client ordered."""
    ledgers.payments[0] = ledgers.payments[0].model_copy(update=change)

    assert kinds(ledgers) == [FaultKind.WRONG_PAYMENT]


@pytest.mark.parametrize("status", [202, 503, None])
def test_an_order_without_a_final_answer_is_found(ledgers: Ledgers, status: int | None) -> None:
    """After everything has settled, an order is either paid or declined."""
    ledgers.closing_answers[PAID.key] = answer(PAID, status, "payment-1" if status == 202 else None)

    assert kinds(ledgers) == [FaultKind.UNSETTLED]


def test_a_payment_that_was_given_up_may_fail(ledgers: Ledgers) -> None:
    """The client must learn of it, and nothing may have been charged."""
    change = {"status": "failed", "failure_reason": "expired"}
    ledgers.payments[0] = ledgers.payments[0].model_copy(update=change)
    ledgers.closing_answers[PAID.key] = answer(PAID, 502, "payment-1")
    ledgers.charges = ledgers.closing_charges = []

    assert kinds(ledgers) == []


@pytest.mark.parametrize("before", [[], [CHARGE]], ids=["an hour later", "at the end"])
def test_a_payment_that_has_failed_and_was_charged_is_found(
    ledgers: Ledgers, before: list[Charge]
) -> None:
    """The charge was there at the end, or it arrived later."""
    change = {"status": "failed", "failure_reason": "expired"}
    ledgers.payments[0] = ledgers.payments[0].model_copy(update=change)
    ledgers.closing_answers[PAID.key] = answer(PAID, 502, "payment-1")
    ledgers.charges = before

    assert kinds(ledgers)[0] is FaultKind.FALSE_FAILURE


def test_a_final_answer_that_changes_is_found(ledgers: Ledgers) -> None:
    """An order that was answered as paid must not be declined later."""
    ledgers.answers.append(answer(DECLINED, 201, "payment-2"))

    assert kinds(ledgers) == [FaultKind.UNEXPECTED_ANSWER, FaultKind.TAKEN_BACK]


@pytest.mark.parametrize("status", [200, 400, 404, 409, 422, 500])
def test_an_answer_outside_the_contract_is_found(ledgers: Ledgers, status: int) -> None:
    """A valid order is accepted, declined, or to be tried again."""
    ledgers.answers.append(answer(PAID, status))

    assert kinds(ledgers) == [FaultKind.UNEXPECTED_ANSWER]


def test_a_reused_key_must_be_refused(ledgers: Ledgers) -> None:
    """Without a 409, the client would believe that its new order was accepted."""
    ledgers.answers.append(replace(answer(PAID, 201, "payment-1"), is_altered=True))

    assert kinds(ledgers) == [FaultKind.UNEXPECTED_ANSWER]


def test_a_charge_for_the_last_repetition_is_found(ledgers: Ledgers) -> None:
    """It orders a payment that was charged and then lost again, and so charges it twice."""
    again = CHARGE.model_copy(update={"idempotency_key": "payment-3"})
    ledgers.payments = ledgers.payments[1:]
    ledgers.closing_answers[PAID.key] = answer(PAID, 201, "payment-3")
    ledgers.closing_charges = [CHARGE, again]

    assert kinds(ledgers) == [
        FaultKind.TWO_PAYMENTS,
        FaultKind.WRONG_PAYMENT,
        FaultKind.WRONG_PAYMENT,
        FaultKind.CHARGED_TWICE,
        FaultKind.CHARGED_AT_LAST,
    ]


def test_a_request_beyond_its_limit_is_found(ledgers: Ledgers) -> None:
    """This includes requests that a client gave up and the last repetitions."""
    ledgers.answers.append(replace(answer(PAID, None), seconds=LIMIT_SECONDS, error="gave up"))
    ledgers.closing_answers[DECLINED.key] = replace(
        ledgers.closing_answers[DECLINED.key], seconds=LIMIT_SECONDS + 1
    )

    assert kinds(ledgers) == [FaultKind.HUNG] * 2
