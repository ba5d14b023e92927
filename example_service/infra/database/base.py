"""The base class and the column types of all tables."""

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
"""Migrations refer to constraints by name, and the default names differ between databases."""


class Base(DeclarativeBase):
    """The base class of all tables."""

    metadata = MetaData(naming_convention=_NAMING)


class UTCDateTime(TypeDecorator[datetime]):
    """A time-zone-aware datetime, stored in UTC. SQLite does not store the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Convert the datetime to UTC.

        Raises:
            ValueError: The datetime is naive, so it is ambiguous.
        """
        if value is not None and value.tzinfo is None:
            raise ValueError("a datetime needs a time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add the time zone to a datetime from SQLite."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=UTC)


class Word(TypeDecorator[str]):
    """A member of a string enumeration, stored as text.

    Adding a member needs no migration. A value that this version does not know, because a newer
    version wrote it, is returned as a plain string.

    Args:
        words: The enumeration.
    """

    impl = String(16)
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: str | None, _: Dialect) -> str | None:
        """Convert a member to text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, _: Dialect) -> str | None:
        """Convert text to a member, or return it unchanged if no member has this value."""
        if value is None:
            return None
        try:
            return self.words(value)
        except ValueError:
            return value
