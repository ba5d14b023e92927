"""The record of one circuit in a store.

All times are in milliseconds on the store's clock, whose starting point does not matter.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Final, NamedTuple

from pydantic import BeforeValidator, TypeAdapter, ValidationError

CLOSED_SECONDS: Final = 60
"""How long a closed circuit's record is kept, so that openings before the close are ignored."""

ABANDONED_SECONDS: Final = 3600
"""How long after its open period an open circuit is kept if no process probes."""

ENDLESS_SECONDS: Final = 365 * 24 * 3600
"""How long a record without an end time is kept."""


class Lease(NamedTuple):
    """The right to run one probe.

    Attributes:
        owner: The member that received it.
        deadline: When it expires.
    """

    owner: str
    deadline: int


class Order(NamedTuple):
    """The last order of an operator.

    Attributes:
        id: The unique id of the order.
        mode: The mode to set; None resets the circuit.
        reason: The reason that the operator gave.
        until: When the mode ends; None until the next reset.
    """

    id: str
    mode: str | None
    reason: str
    until: int | None


def _known_part(kind: type[Lease | Order]) -> BeforeValidator:
    """Ignore the fields that later versions have added at the end of a tuple."""
    count = len(kind._fields)
    return BeforeValidator(lambda value: value[:count] if isinstance(value, list) else value)


@dataclass(frozen=True, slots=True)
class Record:
    """The shared state of one circuit.

    Attributes:
        version: Grows with each write; 0 if the store has no record.
        is_open: Whether the circuit is open or half-open for the whole fleet.
        opened_at: When it opened.
        until: When the open period ends; None if it has no end.
        opener: The member that opened it.
        reason: Why it opened or closed.
        reopenings: How many recoveries have failed since it was last closed.
        successes: How many probes have succeeded since the open period ended.
        closed_at: When it last closed for the whole fleet.
        leases: The leases of probes, by id.
        votes: When each member's vote to open expires, while they are fewer than the quorum.
        order: The last order of an operator; None if there is none.
    """

    version: int = 0
    is_open: bool = False
    opened_at: int = 0
    until: int | None = 0
    opener: str = ""
    reason: str = ""
    reopenings: int = 0
    successes: int = 0
    closed_at: int = 0
    leases: Mapping[str, Annotated[Lease, _known_part(Lease)]] = field(default_factory=dict)
    votes: Mapping[str, int] = field(default_factory=dict)
    order: Annotated[Order, _known_part(Order)] | None = None

    def is_waiting(self, now: int) -> bool:
        """Whether the circuit is open and its open period has not ended."""
        return self.is_open and (self.until is None or now < self.until)

    def is_half_open(self, now: int) -> bool:
        """Whether the open period has ended, so that probes may run."""
        return self.is_open and not self.is_waiting(now)

    def mode(self, now: int) -> Order | None:
        """The order whose mode applies now; None if there is none."""
        order = self.order
        if order is None or order.mode is None:
            return None
        return order if order.until is None or now < order.until else None

    def unexpired_leases(self, now: int) -> dict[str, Lease]:
        """The leases whose deadline has not passed."""
        return {key: lease for key, lease in self.leases.items() if now < lease.deadline}

    def with_version(self, version: int) -> "Record":
        """A copy with another version."""
        return replace(self, version=version)

    def expires_in(self, now: int) -> int:
        """How long a store keeps the record, in milliseconds."""
        ends = [now + CLOSED_SECONDS * 1000, *self.votes.values()]
        endless = now + ENDLESS_SECONDS * 1000
        if self.is_open:
            ends.append(endless if self.until is None else self.until + ABANDONED_SECONDS * 1000)
        if (order := self.mode(now)) is not None:
            ends.append(endless if order.until is None else order.until)
        return max(ends) - now

    def must_exist(self, now: int) -> bool:
        """Whether a store cannot have dropped the record because it expired."""
        is_open = self.is_open and (
            self.until is None or now < self.until + ABANDONED_SECONDS * 1000
        )
        return is_open or self.mode(now) is not None

    def moved(self, milliseconds: int) -> "Record":
        """A copy whose times are shifted by `milliseconds`."""

        def move(at: int | None) -> int | None:
            return None if at is None else at + milliseconds

        order = self.order
        return replace(
            self,
            opened_at=self.opened_at + milliseconds,
            until=move(self.until),
            closed_at=self.closed_at + milliseconds,
            leases={
                key: lease._replace(deadline=lease.deadline + milliseconds)
                for key, lease in self.leases.items()
            },
            votes={member: at + milliseconds for member, at in self.votes.items()},
            order=None if order is None else order._replace(until=move(order.until)),
        )

    def to_json(self) -> str:
        """Serialize the record, without its version and without fields that have the default."""
        kept = {key: getattr(self, key) for key in _EMPTY if getattr(self, key) != _EMPTY[key]}
        return json.dumps(kept, separators=(",", ":"))


def record_from_json(version: int, text: str) -> Record:
    """Parse a record that `to_json` serialized. Fields of later versions are ignored.

    Raises:
        ValueError: The text is not a record.
    """
    try:
        return _RECORD.validate_json(text).with_version(version)
    except ValidationError as error:
        raise ValueError(f"not a record of a circuit: {text[:100]!r}") from error


_EMPTY: Final = {key: value for key, value in asdict(Record()).items() if key != "version"}
_RECORD: Final = TypeAdapter(Record)
