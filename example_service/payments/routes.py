"""Routes that create, read and list payments."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError
from sqlalchemy.ext.asyncio import AsyncSession

from example_service.api.dependencies import CallerName, OpenDatabase
from example_service.api.problems.answers import ProblemError
from example_service.api.problems.database import DATABASE_PROBLEMS
from example_service.api.problems.openapi import problem_responses
from example_service.api.request.query import PLAIN_DIGITS
from example_service.api.request.strict_route import StrictRoute
from example_service.payments.dependencies import Payments
from example_service.payments.models import (
    MAX_IDEMPOTENCY_KEY_LENGTH,
    UNNAMED,
    FailureReason,
    Payment,
    PaymentOrder,
    PaymentStatus,
)
from example_service.payments.problems import (
    IDEMPOTENCY_KEY_REUSED,
    PAYMENT_DECLINED,
    PAYMENT_FAILED,
    PROVIDER_NOT_CONFIGURED,
    UNKNOWN_PAYMENT,
)
from example_service.payments.repository import PaymentRepository

router = APIRouter(
    prefix="/api/v1/payments",
    tags=["payments"],
    route_class=StrictRoute,
)

_KEY_HEADER: Final = "Idempotency-Key"
_STANDARD_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

IdempotencyKey = Annotated[
    str,
    Header(
        alias=_KEY_HEADER,
        pattern=rf"^[!-~]{{1,{MAX_IDEMPOTENCY_KEY_LENGTH}}}$",
        description="Chosen by the client for each order: 1 to 255 visible ASCII characters. "
        "Repeating an order with the same key does not pay it again.",
        examples=["order-2026-0815"],
    ),
]


def _check_form(value: object) -> object:
    """Refuse braces, `urn:uuid:` and missing hyphens, which pydantic would accept.

    Each payment then has a single URL, which makes it easy to find in logs and to match by rules.
    """
    if isinstance(value, str) and not _STANDARD_UUID.fullmatch(value):
        raise PydanticKnownError("uuid_parsing", {"error": "not in the form of RFC 9562"})
    return value


PaymentId = Annotated[UUID, BeforeValidator(_check_form)]


class PaymentReport(BaseModel):
    """The current state of a payment."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    status: PaymentStatus | Annotated[str, Field(description="A status of a newer version.")]
    amount: int = Field(description="In minor units of the currency.")
    currency: str
    customer_id: str
    failure_reason: (
        FailureReason | Annotated[str, Field(description="A reason of a newer version.")] | None
    ) = Field(description="Why the payment failed; null unless it has failed.")
    created_at: datetime
    finished_at: datetime | None = Field(
        description="Null until the payment has succeeded or failed."
    )


class PaymentPage(BaseModel):
    """A page of payments, newest first."""

    items: list[PaymentReport]
    next_cursor: UUID | None = Field(
        description="The `cursor` of the next page; null on the last page."
    )


_PAYMENT_LINK: Final = {
    "payment": {
        "operationId": "read_payment",
        "parameters": {"payment_id": "$response.body#/id"},
        "description": "The current state of the payment.",
    }
}
_PAGE_LINK: Final = {
    "next_page": {
        "operationId": "list_payments",
        "parameters": {"cursor": "$response.body#/next_cursor"},
        "description": "The next page, if `next_cursor` is not null.",
    }
}
_PAYMENT_HEADERS: Final = {
    "Location": {"description": "URL of the payment.", "schema": {"type": "string"}}
}
_PENDING_HEADERS: Final = {
    **_PAYMENT_HEADERS,
    "Retry-After": {
        "description": "Whole seconds after which to read the payment again.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
_ORDER_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    201: {"description": "Paid.", "headers": _PAYMENT_HEADERS, "links": _PAYMENT_LINK},
    202: {
        "model": PaymentReport,
        "description": "Accepted, but not paid yet, because the provider failed or its circuit is "
        "open.",
        "headers": _PENDING_HEADERS,
        "links": _PAYMENT_LINK,
    },
    **problem_responses(
        PAYMENT_DECLINED,
        PAYMENT_FAILED,
        IDEMPOTENCY_KEY_REUSED,
        PROVIDER_NOT_CONFIGURED,
        *DATABASE_PROBLEMS,
    ),
}


@router.post(
    "",
    operation_id="create_payment",
    status_code=status.HTTP_201_CREATED,
    responses=_ORDER_RESPONSES,
)
async def create_payment(
    *,
    order: PaymentOrder,
    idempotency_key: IdempotencyKey,
    payments: Payments,
    caller: CallerName,
    request: Request,
    response: Response,
) -> PaymentReport:
    """Pay an order. Repeating the request with the same key does not pay it again.

    The order is stored before the provider is called. If the provider fails, the response is 202,
    and the service keeps trying until the payment has succeeded or failed.
    """
    payment = await payments.pay(order, idempotency_key, caller or UNNAMED)
    if payment.status is PaymentStatus.FAILED:
        raise _failure(payment)
    path = request.app.url_path_for("read_payment", payment_id=payment.id)
    response.headers["Location"] = request.scope.get("root_path", "") + path
    if payment.status is not PaymentStatus.SUCCEEDED:
        response.status_code = status.HTTP_202_ACCEPTED
        response.headers["Retry-After"] = str(
            math.ceil(payments.usual_wait_seconds(payment.attempts))
        )
    return PaymentReport.model_validate(payment)


@router.get(
    "",
    operation_id="list_payments",
    responses={
        200: {"links": _PAGE_LINK},
        **problem_responses(UNKNOWN_PAYMENT, *DATABASE_PROBLEMS),
    },
)
async def list_payments(
    database: OpenDatabase,
    caller: CallerName,
    limit: Annotated[
        int, Query(ge=1, le=100, description="Payments on one page."), PLAIN_DIGITS
    ] = 20,
    cursor: Annotated[
        PaymentId | None,
        Query(description="`next_cursor` of the previous page; omit it for the first page."),
    ] = None,
) -> PaymentPage:
    """List the payments of the caller, newest first, in pages.

    New payments do not shift the following pages.
    """

    async def find(session: AsyncSession) -> Sequence[Payment]:
        payments, owner = PaymentRepository(session), caller or UNNAMED
        last = None if cursor is None else await payments.find(cursor, owner)
        if cursor is not None and last is None:
            raise ProblemError(UNKNOWN_PAYMENT, "`cursor` does not belong to a page of this list.")
        return await payments.newest(limit + 1, older_than=last, caller=owner)

    found = await database.run(find)
    items = [PaymentReport.model_validate(payment) for payment in found[:limit]]
    return PaymentPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get(
    "/{payment_id}",
    operation_id="read_payment",
    name="read_payment",
    responses=problem_responses(UNKNOWN_PAYMENT, *DATABASE_PROBLEMS),
)
async def read_payment(
    payment_id: PaymentId, database: OpenDatabase, caller: CallerName
) -> PaymentReport:
    """Return the current state of a payment, with the reason if it has failed."""
    payment = await database.run(
        lambda session: PaymentRepository(session).find(payment_id, caller or UNNAMED)
    )
    if payment is None:
        raise ProblemError(UNKNOWN_PAYMENT)
    return PaymentReport.model_validate(payment)


def _failure(payment: Payment) -> ProblemError:
    declined = payment.failure_reason is FailureReason.DECLINED
    return ProblemError(
        PAYMENT_DECLINED if declined else PAYMENT_FAILED,
        extensions={"payment_id": str(payment.id), "failure_reason": payment.failure_reason},
    )
