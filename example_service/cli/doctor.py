"""The command `example-service doctor`: show the settings, and check them."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import httpx

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.core.settings import Settings
from example_service.core.settings.addresses import resolves_to_local
from example_service.core.settings.database_url import SQLiteAddress
from example_service.core.settings.loading import read_settings, variable_sources
from example_service.core.settings.production import production_problems
from example_service.core.settings.variables import DELIMITER, Variable, as_text, variables
from example_service.core.table import aligned
from example_service.domain import Upstream
from example_service.infra.database.database import open_database
from example_service.infra.database.engine import database_address
from example_service.infra.database.exceptions import DatabaseUnavailableError
from example_service.infra.database.failures import DATABASE_ERRORS, describe_error
from example_service.infra.fleet.store import Store, StoreError
from example_service.infra.http.environment import (
    environment_problems,
    ignored_networks,
    usable_exceptions,
)
from example_service.infra.metrics.shared.multiprocess import directory_problems
from example_service.infra.resilience import circuit_breaker_registry
from example_service.main import create_own_breakers, enabled_domains
from example_service.migrations import schema_fault
from example_service.server.process import ListenError, listen

UPSTREAM_LIMIT_SECONDS = 2.0

_DOCTOR = "doctor"
_MASK = "********"
_FIRST_FREE_PORT = 1024


def doctor(output: TextIO) -> int:
    """Check the settings, and whether what the service needs is there.

    Args:
        output: The stream to write the report to.

    Returns:
        The exit status: 0 if nothing is wrong, 1 if something is.

    Raises:
        SettingsError: A variable is invalid, so the settings cannot be loaded.
    """
    settings, problems = read_settings()
    if settings is None:
        raise SettingsError(problems)
    unsafe = production_problems(settings)
    in_production = settings.environment == "production"
    from_environment = environment_problems()
    contradictions = _breaker_problems(settings)
    faults = [
        *problems,
        *contradictions,
        *from_environment,
        *_listen_problems(settings),
        *(directory_problems() if settings.workers > 1 else []),
        *(unsafe if in_production else []),
    ]
    database, database_serves = _check_database(settings)
    fleet_rows, fleet_meets = _check_fleet(settings)
    upstreams = [
        (each.name, *_check_upstream(each, is_remote=in_production))
        for domain in enabled_domains(settings)
        for each in domain.upstreams(settings)
    ]
    hints = [
        *_overlooked_rows(settings, variable_sources()),
        *_misspelt_breaker_rows(settings),
        *_ignored_network_rows(),
    ]
    sections: list[tuple[str, list[Sequence[str]]]] = [
        ("Settings", _setting_rows(settings, variable_sources())),
        ("Faults", _problem_rows(faults)),
        ("Production would refuse", [] if in_production else _problem_rows(unsafe)),
        ("Set, but not read", hints),
        ("Database", [database]),
        ("Fleet", fleet_rows),
        ("Upstreams", [(name, shown) for name, shown, _ in upstreams]),
    ]
    for title, rows in sections:
        if rows:
            output.write(f"{title}\n\n{aligned(rows)}\n\n")
    passed = [
        not faults,
        database_serves,
        fleet_meets,
        *(answers for _, _, answers in upstreams),
    ]
    healthy = all(passed)
    success_message = "Nothing else is wrong.\n" if hints else "Nothing is wrong.\n"
    output.write(success_message if healthy else "Something is wrong; see above.\n")
    return 0 if healthy else 1


def _listen_problems(settings: Settings) -> Iterator[SettingProblem]:
    """Why the service could not listen on its address, except that it may be running already."""
    # Listening on a port below 1024 needs a permission; on any other, the address decides.
    port = settings.port if settings.port < _FIRST_FREE_PORT else 0
    try:
        listen(settings.host, port).close()
    except ListenError as error:
        if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
            yield SettingProblem("PORT" if port else "HOST", str(error))


def _breaker_problems(settings: Settings) -> Sequence[SettingProblem]:
    try:
        create_own_breakers(settings, enabled_domains(settings))
    except SettingsError as error:
        return error.problems
    return ()


def _setting_rows(settings: Settings, sources: Mapping[str, str]) -> list[Sequence[str]]:
    known = variables(Settings, settings.circuit_breakers)
    return [(v.name, _shown(v, settings), sources.get(v.name, "default")) for v in known]


def _shown(variable: Variable, settings: Settings) -> str:
    value = variable.value_in(settings)
    if value is None:
        return "(not set)"
    if variable.is_secret:
        return _MASK
    text = as_text(value)
    return text if text.isprintable() else ascii(text)


def _problem_rows(problems: Sequence[SettingProblem]) -> list[Sequence[str]]:
    return [(p.variable, p.problem, p.example) for p in problems]


def _overlooked_rows(settings: Settings, sources: Mapping[str, str]) -> list[Sequence[str]]:
    """Variables such as `LOG_LEVEL`, with one underscore instead of two.

    They are hints and not faults, because they often belong to another program.
    """
    known = variables(Settings, settings.circuit_breakers)
    meant = {v.name.replace(DELIMITER, "_"): v.name for v in known if DELIMITER in v.name}
    return [
        (name, f"did you mean {meant[name]}?", source)
        for name, source in sources.items()
        if name in meant
    ]


def _misspelt_breaker_rows(settings: Settings) -> list[Sequence[str]]:
    """Settings of a breaker that does not exist, if there is one with a similar name."""
    known = {breaker.name for breaker in circuit_breaker_registry}
    return [
        (
            f"CIRCUIT_BREAKERS__{name.upper()}",
            f"did you mean CIRCUIT_BREAKERS__{meant.upper()}?",
            f"no breaker is called {name}",
        )
        for name in settings.circuit_breakers
        if name not in known
        for meant in get_close_matches(name, known, n=1, cutoff=0.75)
    ]


def _ignored_network_rows() -> list[Sequence[str]]:
    """Networks in NO_PROXY. They are hints, because other programs read them."""
    return [
        (name, f"list host names or addresses instead of {', '.join(networks)}", "environment")
        for name, networks in ignored_networks().items()
    ]


def _check_database(settings: Settings) -> tuple[tuple[str, str], bool]:
    """Describe the state of the database and its schema, and whether it is as expected."""
    address = database_address(settings)
    where = str(address)
    if isinstance(address, SQLiteAddress) and (read_only := _read_only(Path(address.path))):
        return (where, f"cannot be written: {read_only} is read-only"), False
    if (
        isinstance(address, SQLiteAddress)
        and not (file := Path(address.path)).exists()
        and _nearest_parent(file).is_dir()
    ):
        return (where, "does not exist yet; `example-service migrate` creates it"), True
    fault = _within_limit(lambda: asyncio.run(_database_fault(settings)))
    return (where, fault or "responds, and its schema is up to date"), fault is None


def _nearest_parent(file: Path) -> Path:
    return next(path for path in file.absolute().parents if path.exists())


def _read_only(file: Path) -> Path | None:
    """The file or the folder that SQLite cannot write to; None if it can write to both."""
    folder = _nearest_parent(file)
    written = [folder, file] if file.exists() else [folder]
    return next((path for path in written if not os.access(path, os.W_OK)), None)


async def _database_fault(settings: Settings) -> str | None:
    try:
        async with open_database(settings) as database:
            return await schema_fault(database)
    except DatabaseUnavailableError as error:
        return str(error)
    except DATABASE_ERRORS as error:
        return describe_error(error)


def _check_fleet(settings: Settings) -> tuple[list[Sequence[str]], bool]:
    """Describe the state of the Redis store, if there is one, and whether it can be used."""
    if settings.redis.url is None:
        return [], True
    # This needs the extra `redis`, so it is imported only if a URL is set.
    from example_service.infra.fleet.redis_store import redis_store  # noqa: PLC0415

    if (store := redis_store(settings.redis)) is None:
        return [], True
    fault = _within_limit(lambda: asyncio.run(_store_fault(store)))
    return [(store.address, fault or "responds, and is writable")], fault is None


async def _store_fault(store: Store) -> str | None:
    try:
        await store.connect()
        await store.beat(_DOCTOR, 0)
        await store.read()
        async for _ in store.changes():
            break
    except StoreError as error:
        return str(error)
    finally:
        await store.close(_DOCTOR)
    return None


def _check_upstream(upstream: Upstream, *, is_remote: bool) -> tuple[str, bool]:
    """Describe the state of an upstream, and whether it is as expected.

    Args:
        upstream: The upstream.
        is_remote: Whether it must be on another machine.
    """
    url = upstream.url
    if url is None:
        return upstream.without_url, not upstream.is_needed
    problem = _within_limit(lambda: (is_remote and _why_local(url)) or _why_unreachable(url))
    host = urlsplit(url).netloc
    return (f"{host} answers", True) if problem is None else (f"{host}: {problem}", False)


def _why_local(url: str) -> str | None:
    if resolves_to_local(urlsplit(url).hostname or ""):
        return "the name resolves to this machine or link, as a sandbox's would"
    return None


def _why_unreachable(url: str) -> str | None:
    """Why a server cannot be reached; None if it sends any response."""
    try:
        with usable_exceptions(), httpx.stream("GET", url, timeout=UPSTREAM_LIMIT_SECONDS):
            return None
    except Exception as error:  # noqa: BLE001 - any exception means that it cannot be reached
        return str(error) or type(error).__name__


def _within_limit(find_fault: Callable[[], str | None]) -> str | None:
    """Run a check with a time limit, which counts as a fault if exceeded.

    The check runs in a thread, because a DNS lookup cannot be cancelled, but a thread can be
    abandoned.
    """
    outcome: list[str | None] = []
    thread = threading.Thread(target=lambda: outcome.append(find_fault()), daemon=True)
    thread.start()
    thread.join(UPSTREAM_LIMIT_SECONDS)
    return outcome[0] if outcome else f"no response within {UPSTREAM_LIMIT_SECONDS:g} s"
