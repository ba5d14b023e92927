"""What all tables share: timestamps with a time zone, and named constraints."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import CheckConstraint, ForeignKey, MetaData, literal, select
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from example_service.infra.database.base import Base, UTCDateTime
from example_service.infra.database.database import Database

TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC),
        datetime(2026, 11, 25, 21, 0, 0, 123456, tzinfo=TOKYO),
    ],
)
async def test_timestamps_are_returned_in_utc(moment: datetime, database: Database) -> None:
    """A timestamp in any zone keeps its point in time, to the microsecond."""
    async with database.transaction() as session:
        stored = await session.scalar(select(literal(moment, UTCDateTime)))

    assert stored == datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)
    assert stored.tzinfo is UTC


async def test_a_missing_timestamp_stays_missing(database: Database) -> None:
    """NULL is read as None."""
    async with database.transaction() as session:
        assert await session.scalar(select(literal(None, UTCDateTime))) is None


async def test_a_timestamp_without_a_zone_is_refused(database: Database) -> None:
    """It is ambiguous, and the two databases would interpret it differently."""
    naive = datetime(2026, 11, 25, 12)  # noqa: DTZ001 - this is refused
    with pytest.raises(StatementError, match="a datetime needs a time zone"):
        async with database.transaction() as session:
            await session.scalar(select(literal(naive, UTCDateTime)))


def test_constraints_are_named_by_one_convention() -> None:
    """Migrations can refer to them by name on every database."""

    class Notes(DeclarativeBase):
        metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    class Author(Notes):
        __tablename__ = "authors"
        __table_args__ = (CheckConstraint("born > 0", name="born_is_positive"),)
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(unique=True)
        born: Mapped[int]

    class Note(Notes):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        author_id: Mapped[int] = mapped_column(ForeignKey(Author.id), index=True)

    tables = Notes.metadata.tables.values()
    assert sorted(str(constraint.name) for table in tables for constraint in table.constraints) == [
        "ck_authors_born_is_positive",
        "fk_notes_author_id_authors",
        "pk_authors",
        "pk_notes",
        "uq_authors_email",
    ]
    assert [index.name for table in tables for index in table.indexes] == ["ix_notes_author_id"]
