"""Migrations go up and down on both databases, completely or not at all, one at a time."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script
from alembic.util import CommandError
from sqlalchemy import Column, Connection, Inspector, Integer, Table, inspect, text
from sqlalchemy.exc import DBAPIError

from example_service import migrations, payments
from example_service.core.settings import Settings
from example_service.infra.database.base import Base, UTCDateTime
from example_service.infra.database.database import open_database
from example_service.infra.database.engine import create_migration_engine
from example_service.migrations import (
    MigrationError,
    domains_with_migrations,
    head_revisions,
    known_revisions,
    schema_fault,
    upgrade,
)
from example_service.payments.models import Payment
from tests.databases import PostgresDatabases, settings_for

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "later"
down_revision = {head!r}


def upgrade() -> None:
    op.create_table("refunds", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("payments", sa.Column("note", sa.String(10)))
    {then}


def downgrade() -> None:
    op.drop_column("payments", "note")
    op.drop_table("refunds")
"""

AddRevision = Callable[..., None]


@pytest.fixture
def settings(empty_database: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a test with its own migrated database, whose schema it may change."""
    monkeypatch.setenv("DATABASE_URL", empty_database.database_url.get_secret_value())
    asyncio.run(upgrade(empty_database))
    return empty_database


@pytest.fixture
def postgres_settings(postgres_databases: PostgresDatabases) -> Iterator[Settings]:
    """The same settings for PostgreSQL."""
    with postgres_databases.empty() as url:
        asyncio.run(upgrade(settings_for(url)))
        yield settings_for(url)


@pytest.fixture
def use_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Read the migrations from the folders of another package until the test ends."""

    def forget() -> None:
        head_revisions.cache_clear()
        known_revisions.cache_clear()

    def use(package: Path) -> None:
        monkeypatch.setattr(migrations, "_PACKAGE", package)
        forget()

    yield use
    forget()


@pytest.fixture
def add_revision(tmp_path: Path, use_package: Callable[[Path], None]) -> AddRevision:
    """Add a migration to those of the service, as in its next version."""

    def add(then: str = "pass") -> None:
        folder = tmp_path / "100% package"
        shutil.copytree(
            Path(payments.__file__).parent,
            folder / "payments",
            # Other tests may be writing compiled files.
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (head,) = head_revisions()
        script = LATER_REVISION.format(head=head, then=then)
        (folder / "payments" / "migrations" / "later.py").write_text(script)
        use_package(folder)

    return add


async def with_connection(settings: Settings, use: Callable[[Connection], Any]) -> Any:
    """Call a function with a connection, commit, and return its result."""
    engine = create_migration_engine(settings, statement_timeout_seconds=5.0)
    async with engine.begin() as connection:
        return await connection.run_sync(use)


async def run(settings: Settings, sql: str) -> None:
    """Execute a statement."""
    await with_connection(settings, lambda connection: connection.execute(text(sql)))


async def tables(settings: Settings) -> list[str]:
    """The names of the tables except alembic's own."""

    def names(connection: Connection) -> list[str]:
        return sorted(set(inspect(connection).get_table_names()) - {"alembic_version"})

    found: list[str] = await with_connection(settings, names)
    return found


async def fault(settings: Settings) -> str | None:
    """What readiness says about the schema."""
    async with open_database(settings) as database:
        return await schema_fault(database)


def alembic_config() -> Config:
    """The configuration in `alembic.ini` for alembic's own commands."""
    return Config(Path(__file__).parents[3] / "alembic.ini")


class TestUpgrade:
    """Applying missing migrations."""

    async def test_an_empty_database_gets_every_table(self, empty_database: Settings) -> None:
        """The revisions before and after are returned."""
        assert await upgrade(empty_database) == (frozenset(), head_revisions())

        assert await tables(empty_database) == sorted(Base.metadata.tables)

    async def test_nothing_happens_where_nothing_is_missing(self, settings: Settings) -> None:
        """It can run at every deployment."""
        assert await upgrade(settings) == (head_revisions(), head_revisions())

    async def test_a_schema_that_is_behind_is_brought_forward(
        self, settings: Settings, add_revision: AddRevision
    ) -> None:
        """The changes of the newer version are applied, and nothing else."""
        before = head_revisions()
        add_revision()

        assert await upgrade(settings) == (before, frozenset({"later"}))
        assert await tables(settings) == sorted([*Base.metadata.tables, "refunds"])

    async def test_a_migration_that_fails_leaves_nothing_behind(
        self, settings: Settings, add_revision: AddRevision
    ) -> None:
        """Its changes are rolled back, so that it can be corrected and run again."""
        before = head_revisions()
        add_revision(then='op.execute("SELECT * FROM nowhere")')

        with pytest.raises(DBAPIError, match="nowhere"):
            await upgrade(settings)

        assert await tables(settings) == sorted(Base.metadata.tables)
        assert await fault(settings) == "the schema is behind; run `example-service migrate`"
        assert await with_connection(settings, migrations._current_revisions) == before

    async def test_the_lock_is_given_back_after_a_failure(
        self, settings: Settings, add_revision: AddRevision
    ) -> None:
        """The next migration does not wait for it."""
        add_revision(then="raise ZeroDivisionError")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await upgrade(settings)

    async def test_several_at_once_follow_each_other(self, empty_database: Settings) -> None:
        """One does the work, and the others find it done."""
        outcomes = await asyncio.gather(*(upgrade(empty_database) for _ in range(5)))

        heads = head_revisions()
        assert sorted(outcomes, key=lambda outcome: len(outcome[0])) == [
            (frozenset(), heads),
            *[(heads, heads)] * 4,
        ]

    async def test_a_database_of_a_newer_version_is_left_alone(self, settings: Settings) -> None:
        """The message names the revision and what to do, and nothing is changed."""
        await run(settings, "UPDATE alembic_version SET version_num = 'f00'")

        with pytest.raises(MigrationError, match="revision f00, which this version") as caught:
            await upgrade(settings)

        assert "a newer version has migrated it" in str(caught.value)
        assert await tables(settings) == sorted(Base.metadata.tables)


@pytest.mark.integration
class TestLockOfPostgreSQL:
    """The lock between migrations."""

    async def test_a_migration_that_waits_too_long_ends_with_a_message(
        self, postgres_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If another migration does not end, the error says so."""
        engine = create_migration_engine(postgres_settings, statement_timeout_seconds=5.0)
        async with engine.connect() as holder:
            await holder.execute(text(f"SELECT pg_advisory_lock({migrations._LOCK})"))
            with monkeypatch.context() as patch:
                patch.setattr(migrations, "LOCK_WAIT_SECONDS", 0.01)
                with pytest.raises(MigrationError, match=r"running for 0\.01 seconds"):
                    await upgrade(postgres_settings)

        assert await upgrade(postgres_settings) == (head_revisions(), head_revisions())

    async def test_waiting_does_not_delay_an_index_that_is_built_concurrently(
        self, postgres_settings: Settings, add_revision: AddRevision
    ) -> None:
        """Such a migration waits for all transactions, including those of waiting migrations."""
        add_revision(
            then="with op.get_context().autocommit_block():"
            ' op.execute("CREATE INDEX CONCURRENTLY ix_note ON payments (note)")'
        )

        outcomes = await asyncio.gather(*(upgrade(postgres_settings) for _ in range(3)))

        assert [after for _, after in outcomes] == [frozenset({"later"})] * 3
        assert len({before for before, _ in outcomes}) == 2

    async def test_a_crash_gives_the_lock_back(self, postgres_settings: Settings) -> None:
        """The lock belongs to a connection and ends with it."""
        engine = create_migration_engine(postgres_settings, statement_timeout_seconds=5.0)
        async with engine.connect() as holder:
            await holder.execute(text(f"SELECT pg_advisory_lock({migrations._LOCK})"))
            process = await holder.scalar(text("SELECT pg_backend_pid()"))
            waiting = asyncio.create_task(upgrade(postgres_settings))
            await run(postgres_settings, f"SELECT pg_terminate_backend({process}, 5000)")
            assert await waiting == (head_revisions(), head_revisions())
            await holder.invalidate()

    async def test_the_server_s_limit_of_a_transaction_does_not_apply(
        self, postgres_settings: Settings, add_revision: AddRevision
    ) -> None:
        """It would end the migration, or the transaction that has the lock meanwhile."""
        name = postgres_settings.database_url.get_secret_value().rpartition("/")[2]
        try:
            await run(postgres_settings, f"ALTER DATABASE {name} SET transaction_timeout = 1500")
        except DBAPIError:
            pytest.skip("Before version 17, PostgreSQL does not have it.")
        add_revision(then="op.execute('SELECT pg_sleep(1.7)')")

        assert (await upgrade(postgres_settings))[1] == frozenset({"later"})


@pytest.mark.integration
class TestTablesInUse:
    """A migration does not block the service behind a long report."""

    async def test_a_table_in_use_is_waited_for_in_turns(
        self,
        postgres_settings: Settings,
        add_revision: AddRevision,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Other queries wait no longer than the lock timeout while a report reads."""
        add_revision()
        monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0.2)
        monkeypatch.setattr(migrations, "LOCK_RETRY_SECONDS", 0.2)
        longest = 0.0
        async with open_database(postgres_settings) as database:
            async with database.transaction() as report:
                await report.execute(text("SELECT count(*) FROM payments"))
                migrating = asyncio.create_task(upgrade(postgres_settings))
                for _ in range(20):
                    began = time.monotonic()
                    await database.run(lambda s: s.execute(text("SELECT count(*) FROM payments")))
                    longest = max(longest, time.monotonic() - began)
                    await asyncio.sleep(0.05)
                assert not migrating.done()
            await migrating

        assert await fault(postgres_settings) is None
        assert longest < 3.0

    async def test_a_table_that_stays_in_use_is_reported(
        self,
        postgres_settings: Settings,
        add_revision: AddRevision,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The message says where to look."""
        add_revision()
        monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0.05)
        monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 0.0)
        async with (
            open_database(postgres_settings) as database,
            database.transaction() as report,
        ):
            await report.execute(text("SELECT count(*) FROM payments"))
            with pytest.raises(MigrationError, match="pg_stat_activity"):
                await upgrade(postgres_settings)


class TestSchemaFault:
    """What readiness says about the schema."""

    async def test_the_newest_schema_will_do(self, settings: Settings) -> None:
        """Nothing is missing."""
        assert await fault(settings) is None

    async def test_an_empty_database_will_not_do(self, empty_database: Settings) -> None:
        """The message says what to run, and asking creates nothing."""
        assert await fault(empty_database) == (
            "the database has no schema; run `example-service migrate`"
        )
        assert await tables(empty_database) == []

    async def test_a_schema_that_is_behind_will_not_do(
        self, settings: Settings, add_revision: AddRevision
    ) -> None:
        """A new version is not ready before the migration."""
        add_revision()

        assert await fault(settings) == "the schema is behind; run `example-service migrate`"

    async def test_a_schema_that_is_ahead_will_do(self, settings: Settings) -> None:
        """Old instances keep serving until they have been replaced."""
        await run(settings, "UPDATE alembic_version SET version_num = 'f00'")

        assert await fault(settings) is None


class TestScripts:
    """The migrations through alembic's own commands."""

    @pytest.mark.usefixtures("settings")
    def test_the_schema_is_what_the_models_say(self) -> None:
        """`alembic check` finds no missing migration."""
        command.check(alembic_config())

    @pytest.mark.usefixtures("settings")
    def test_a_difference_from_the_models_would_be_found(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise the check might compare nothing."""
        monkeypatch.setattr(Payment.__table__.c.customer_id, "nullable", True)

        with pytest.raises(CommandError, match="New upgrade operations detected"):
            command.check(alembic_config())

    def test_every_migration_goes_down_and_up_again(self, settings: Settings) -> None:
        """It goes down to an empty database and up to the same schema."""
        config = alembic_config()
        command.downgrade(config, "base")
        assert asyncio.run(tables(settings)) == []

        command.upgrade(config, "head")
        command.check(config)

    def test_every_constraint_has_a_name_of_the_convention(self, settings: Settings) -> None:
        """Names are equal on both databases, so that later migrations can use them."""

        def names(connection: Connection) -> set[str | None]:
            inspector: Inspector = inspect(connection)
            return {
                inspector.get_pk_constraint("payments")["name"],
                *(
                    constraint["name"]
                    for constraint in inspector.get_unique_constraints("payments")
                ),
                *(constraint["name"] for constraint in inspector.get_check_constraints("payments")),
                *(index["name"] for index in inspector.get_indexes("payments")),
            }

        assert asyncio.run(with_connection(settings, names)) == {
            "pk_payments",
            "uq_payments_idempotency_key",
            "ck_payments_amount_is_positive",
            "ck_payments_pending_is_due",
            "ck_payments_failed_has_reason",
            "ck_payments_succeeded_has_charge",
            "ix_payments_caller",
            "ix_payments_created_at",
            "ix_payments_due_at",
        }

    @pytest.mark.usefixtures("settings")
    def test_a_new_migration_outlives_our_code(
        self, add_revision: AddRevision, empty_database: Settings
    ) -> None:
        """It uses the library's types and the project's style, and can be applied."""
        add_revision()
        config = alembic_config()
        versions = str(migrations._PACKAGE / "payments" / "migrations")
        config.set_main_option("version_locations", versions.replace("%", "%%"))
        asyncio.run(upgrade(empty_database))
        moments = Table(
            "moments",
            Base.metadata,
            Column("id", Integer, primary_key=True),
            Column("seen_at", UTCDateTime),
        )
        try:
            made = command.revision(config, "add moments", autogenerate=True)
        finally:
            Base.metadata.remove(moments)

        assert isinstance(made, Script)
        script = Path(made.path).read_text()
        assert Path(made.path).name.endswith("_add_moments.py")
        assert 'sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True)' in script
        assert 'sa.PrimaryKeyConstraint("id", name=op.f("pk_moments"))' in script
        assert "example_service." not in script
        command.upgrade(config, "head")
        assert "moments" in asyncio.run(tables(empty_database))

    async def test_what_belongs_to_others_is_left_alone(
        self, postgres_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Autogenerate ignores tables of extensions and other schemas."""
        monkeypatch.setenv("DATABASE_URL", postgres_settings.database_url.get_secret_value())
        await run(postgres_settings, "CREATE TABLE spatial_ref_sys (srid integer PRIMARY KEY)")
        await run(postgres_settings, "CREATE INDEX ON spatial_ref_sys (srid)")
        await run(postgres_settings, "CREATE SCHEMA reports")
        await run(postgres_settings, "CREATE TABLE reports.monthly (id integer)")

        await asyncio.to_thread(command.check, alembic_config())

    def test_each_domain_has_one_line_of_migrations(self) -> None:
        """With two heads in one domain, their order would be undefined."""
        assert len(head_revisions()) == len(domains_with_migrations())
        assert head_revisions() <= known_revisions()

    def test_sql_without_a_database_is_refused(self) -> None:
        """Migrations may read the existing data."""
        with pytest.raises(SystemExit, match="leave out --sql"):
            command.upgrade(alembic_config(), "head", sql=True)
