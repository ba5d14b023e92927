"""Reintroduces an old fault of the service into each process that has this folder on its path.

Python imports a module of this name at startup. `CHAOS_FAULT` names the fault, which the chaos test
must find.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, literal

from example_service.infra.database.base import UTCDateTime
from example_service.payments import answers, provider, service
from example_service.payments.answers import NotCharged, Outcome
from example_service.payments.exceptions import ProviderTimeoutError
from example_service.payments.models import FailureReason
from example_service.payments.provider import PaymentProvider

# Typed as Any, because type checkers do not allow these patches.
Provider: Any = PaymentProvider
Service: Any = service.PaymentService
provider_module: Any = provider

EXPIRED = NotCharged(FailureReason.EXPIRED)


def believe_in_one_look_at_the_end() -> None:
    """Give up a payment that the provider does not know, instead of cancelling it."""

    async def cancel(self: PaymentProvider, *about: Any) -> Outcome:
        return await self.find_charge(*about) or EXPIRED

    Provider.cancel = cancel


def believe_in_unknown() -> None:
    """Fail a payment without an answer as soon as the provider does not know it."""
    charge_once = PaymentProvider.charge

    async def charge(self: PaymentProvider, *about: Any) -> Outcome:
        try:
            return await charge_once(self, *about)
        except ProviderTimeoutError:
            return await self.find_charge(*about) or EXPIRED

    Provider.charge = charge


def trust_own_clock() -> None:
    """Compute times from the clock of this process, and give up after one lookup."""

    def moment(seconds: float) -> ColumnElement[datetime]:
        return literal(datetime.now(UTC) + timedelta(seconds=seconds), UTCDateTime)

    believe_in_one_look_at_the_end()
    Service.__init__.__kwdefaults__["moment"] = moment


def trust_every_answer() -> None:
    """Judge answers only by their status."""
    words = {400: "refused", 402: "declined", 422: "refused"}
    read_charge = answers.read_charge

    def read(answer: answers.Answer, *about: Any) -> Outcome:
        word = words.get(answer.status_code)
        return NotCharged(FailureReason(word)) if word else read_charge(answer, *about)

    provider_module.read_charge = read


FAULTS: dict[str, Callable[[], None]] = {
    "late-charge": believe_in_one_look_at_the_end,
    "own-clock": trust_own_clock,
    "gateway": trust_every_answer,
    "unknown": believe_in_unknown,
}

FAULTS[os.environ["CHAOS_FAULT"]]()
