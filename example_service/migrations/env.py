"""The environment script that alembic runs, for its command line and for `upgrade`."""

import asyncio
import importlib
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection
from sqlalchemy.schema import SchemaItem

import example_service
from example_service.core.settings import load_settings
from example_service.infra.database.base import Base, UTCDateTime
from example_service.infra.database.engine import create_migration_engine
from example_service.migrations import STATEMENT_TIMEOUT_SECONDS, domains_with_migrations

for domain in domains_with_migrations():
    # Importing the models of a domain adds its tables to the metadata.
    importlib.import_module(f"{example_service.__name__}.{domain.name}.models")


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite has to copy a table to alter it.
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render,
        include_object=_is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


def _is_ours(_: SchemaItem, __: str | None, kind: str, is_reflected: bool, model: object) -> bool:
    """Whether autogenerate compares an object. It ignores tables without a model.

    Such tables may belong to an extension. After deleting a model, write the `op.drop_table`
    yourself.
    """
    return not (kind == "table" and is_reflected and model is None)


def _render(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Render our types as SQLAlchemy's, because migrations must work without the current code."""
    is_moment = kind == "type" and isinstance(item, UTCDateTime)
    return "sa.DateTime(timezone=True)" if is_moment else False


async def _connect_and_migrate() -> None:
    engine = create_migration_engine(
        load_settings(), statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS
    )
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    _migrate(given)
elif context.is_offline_mode():
    raise SystemExit("Migrations need a connection to the database: leave out --sql.")
else:
    asyncio.run(_connect_and_migrate())
