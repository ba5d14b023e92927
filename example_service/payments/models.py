"""What the payments domain speaks of."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Currency = Annotated[
    str,
    Field(pattern="^[A-Z]{3}$", description="ISO 4217 code in capitals.", examples=["EUR"]),
]


class ExchangeRate(BaseModel):
    """How much of one currency a unit of another buys, at the time of asking."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    currency: Currency
    base: Currency
    rate: Annotated[
        Decimal,
        Field(
            gt=0,
            max_digits=30,
            description="Units of `currency` for one unit of `base`, written exactly as text.",
            examples=["0.92"],
        ),
    ]
