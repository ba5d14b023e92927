"""What a store keeps of one circuit.

All times are milliseconds on the clock of the store, of which only differences matter.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

CLOSED_SECONDS: Final = 60
"""For how long the record of a closed circuit shows that verdicts before the close are late."""

ABANDONED_SECONDS: Final = 3600
"""For how long after its wait an open circuit is kept that no process probes."""

ENDLESS_SECONDS: Final = 365 * 24 * 3600
"""For how long what has no end is kept."""


class Lease(NamedTuple):
    """The right to run one probe.

    Attributes:
        owner: The member that has it.
        deadline: When it expires.
    """

    owner: str
    deadline: int


class Order(NamedTuple):
    """What an operator has ordered last.

    Attributes:
        id: Different for each order.
        mode: The mode to set; None for a reset.
        reason: Why, in the operator's words.
        until: When the mode ends; None for not before a reset.
    """

    id: str
    mode: str | None
    reason: str
    until: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """The fleet's view of one circuit.

    Attributes:
        version: Grows with each write; 0 where the store has no record.
        is_open: Whether the fleet's verdict is OPEN.
        opened_at: When it opened.
        until: When the open wait ends; None for no end.
        opener: The member that opened it.
        reason: What opened it, or closed it.
        reopenings: Failed recoveries since the circuit was last closed.
        successes: Probes that have succeeded since the wait ended.
        closed_at: When the fleet last closed it.
        leases: The probes that may run, by id.
        votes: When the votes of members expire, while they are fewer than the quorum.
        order: The last order of an operator; None for none.
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
    leases: Mapping[str, Lease] = field(default_factory=dict)
    votes: Mapping[str, int] = field(default_factory=dict)
    order: Order | None = None

    def is_waiting(self, now: int) -> bool:
        """Whether it is open and its wait is not over."""
        return self.is_open and (self.until is None or now < self.until)

    def is_half_open(self, now: int) -> bool:
        """Whether it is open and its wait is over, so that probes may run."""
        return self.is_open and not self.is_waiting(now)

    def mode(self, now: int) -> Order | None:
        """The order that sets a mode now; None where none does."""
        order = self.order
        if order is None or order.mode is None:
            return None
        return order if order.until is None or now < order.until else None

    def unexpired_leases(self, now: int) -> dict[str, Lease]:
        """The leases whose deadline has not passed."""
        return {key: lease for key, lease in self.leases.items() if now < lease.deadline}

    def with_version(self, version: int) -> "Record":
        """The same under another version."""
        return replace(self, version=version)

    def expires_in(self, now: int) -> int:
        """Milliseconds for which a store keeps it."""
        ends = [now + CLOSED_SECONDS * 1000, *self.votes.values()]
        endless = now + ENDLESS_SECONDS * 1000
        if self.is_open:
            ends.append(endless if self.until is None else self.until + ABANDONED_SECONDS * 1000)
        if (order := self.mode(now)) is not None:
            ends.append(endless if order.until is None else order.until)
        return max(ends) - now

    def moved(self, milliseconds: int) -> "Record":
        """The same on a clock that is ahead by so much."""

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
        """As text, without the version and without what is as in an empty record."""
        kept = {key: getattr(self, key) for key in _EMPTY if getattr(self, key) != _EMPTY[key]}
        return json.dumps(kept, separators=(",", ":"))


def record_from_json(version: int, text: str) -> Record:
    """Read what `to_json` wrote.

    Raises:
        ValueError: It is something else.
    """
    try:
        stored: dict[str, Any] = json.loads(text)
        leases = {key: Lease(*lease) for key, lease in stored.pop("leases", {}).items()}
        order = stored.pop("order", None)
        return Record(
            version, leases=leases, order=None if order is None else Order(*order), **stored
        )
    except (TypeError, AttributeError) as error:
        raise ValueError(f"no record of a circuit: {text[:100]!r}") from error


_EMPTY: Final = {key: value for key, value in asdict(Record()).items() if key != "version"}
