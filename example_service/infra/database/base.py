"""What all tables have in common."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import DateTime, Dialect, MetaData, String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

_NAMING: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""A migration can only change what has a name, and databases make up different ones."""


class Base(DeclarativeBase):
    """The class that every table's class derives from."""

    metadata = MetaData(naming_convention=_NAMING)


class UTCDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, which is UTC; SQLite would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Bring the moment to UTC.

        Raises:
            ValueError: If it has no time zone, because it is then ambiguous.
        """
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say that what was stored is UTC."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=UTC)


class Word(TypeDecorator[str]):
    """A word of an enumeration, stored as text.

    A new word needs no migration, and one that only a newer version knows is read as it is.

    Args:
        words: The enumeration.
    """

    impl = String(16)
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: str | None, _: Dialect) -> str | None:
        """Store the text of a word."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, _: Dialect) -> str | None:
        """Read a word, or the text of one that this version does not know."""
        if value is None:
            return None
        try:
            return self.words(value)
        except ValueError:
            return value
