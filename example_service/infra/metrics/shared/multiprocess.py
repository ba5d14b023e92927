"""Metrics of a service with several worker processes.

Without `PROMETHEUS_MULTIPROC_DIR` in the environment, each process exports its own metrics. With
it, prometheus_client stores the metrics of each process in files in that directory, and any worker
can add them up. The library writes its own metric types to these files, but not the metrics of
custom collectors such as ours. Each worker therefore copies them: every second, when it is scraped,
and when it ends. A scrape is at most a second behind, and a worker that is killed loses at most the
last second.

The process that starts the workers calls:

    prepare_multiprocess_directory()  # Before the first worker starts.
    mark_worker_dead(pid)             # After a worker has ended for any reason.

Each worker enters this context manager in its lifespan:

    async with shared_metrics():
        yield

The library decides when it is imported whether metrics are stored in files. Workers must therefore
be new processes, not forks of a process that imported it before the directory was prepared.
"""

import atexit
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client import values

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.infra.metrics.call_durations import call_duration_metrics
from example_service.infra.metrics.circuit_breakers import circuit_breaker_collector
from example_service.infra.metrics.database_pool import pool_metrics
from example_service.infra.metrics.fleet import fleet_metrics
from example_service.infra.metrics.http import request_metrics
from example_service.infra.metrics.shared.allocated import allocate_before_use
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import archive, clear
from example_service.infra.metrics.shared.worker import Worker
from example_service.infra.workers.reports import report_path
from example_service.infra.workers.shared_directory import (
    DIRECTORY_VARIABLE,
    check_directory,
    clear_directory,
    directory_faults,
    locked,
    make_directory,
    shared_directory,
)

logger = logging.getLogger(__name__)

_PREFIX: Final = "example-service-"
_OWNER: Final = "owner"
"""A file that the supervisor and its workers lock until they end. The workers of a supervisor that
was killed still use the directory while they drain."""

_claims: Final = contextlib.ExitStack()

allocate_before_use()


def prepare_multiprocess_directory() -> Path:
    """Prepare the directory in which worker processes share their metrics.

    If `PROMETHEUS_MULTIPROC_DIR` is set, its directory is created if needed, and files of earlier
    processes are removed, because they would be counted again. Otherwise the variable is set to a
    new temporary directory, which is removed when this process ends.

    Returns:
        The directory.

    Raises:
        SettingsError: The directory cannot be used or created.
    """
    directory = shared_directory()
    if directory is None:
        try:
            _remove_leftovers(Path(tempfile.gettempdir()))
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
            _claims.enter_context(locked(directory / _OWNER, exclusive=False))
        except OSError as error:
            raise _no_directory() from error
        os.environ[DIRECTORY_VARIABLE] = str(directory)
        atexit.register(_remove, directory, owner=os.getpid())
        return directory
    try:
        make_directory(directory)
        clear(directory)
        clear_directory(directory)
    except OSError as error:
        raise _unusable(error) from error
    return directory


def directory_problems() -> list[SettingProblem]:
    """Find what would make `prepare_multiprocess_directory` fail, without changing anything."""
    directory = shared_directory()
    try:
        if directory is None:
            tempfile.gettempdir()
        elif os.path.lexists(directory):
            check_directory(directory)
        elif not os.access(parent := _nearest(directory), os.W_OK | os.X_OK):
            raise PermissionError(f"{parent} cannot be written to")
    except OSError as error:
        return list((_unusable(error) if directory else _no_directory()).problems)
    return []


def _nearest(directory: Path) -> Path:
    """The nearest parent that exists."""
    return next(parent for parent in directory.absolute().parents if parent.exists())


def _remove_leftovers(parent: Path) -> None:
    """Remove the unlocked directories of services that were killed."""
    for directory in parent.glob(f"{_PREFIX}*"):
        owner = directory / _OWNER
        with contextlib.suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                continue
            # A directory that is just being created does not have this file yet.
            if owner.exists():
                with locked(owner, exclusive=True, wait_seconds=0.0):
                    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _keeping(directory: Path) -> Iterator[None]:
    """Keep other services from removing the directory until the end of the block."""
    owner = directory / _OWNER
    with contextlib.ExitStack() as stack:
        # Without a lock, the directory may be removed, and is created again.
        with contextlib.suppress(OSError):
            if owner.exists():
                stack.enter_context(locked(owner, exclusive=False, wait_seconds=0.0))
        yield


def _no_directory() -> SettingsError:
    problem = "is needed by several workers: no directory for temporary files is writable"
    return SettingsError([SettingProblem("TMPDIR", problem, "TMPDIR=/run")])


def _unusable(error: OSError) -> SettingsError:
    problem = f"names a directory that cannot be used: {error.strerror or error}"
    example = f"{DIRECTORY_VARIABLE}=/run/example-service"
    return SettingsError([SettingProblem(DIRECTORY_VARIABLE, problem, example)])


def disable_sharing() -> None:
    """Export only the metrics of this process, and ignore `PROMETHEUS_MULTIPROC_DIR`.

    A single process has nothing to share, and would add the files that earlier processes left.
    """
    os.environ.pop(DIRECTORY_VARIABLE, None)
    values.ValueClass = values.MutexValue


def mark_worker_dead(pid: int) -> bool:
    """Remove the gauges of a worker that has ended, and keep its counters in the sums.

    Does nothing if metrics are not shared.

    Args:
        pid: The process id of the worker.

    Returns:
        False if another process has locked the files for too long; call again later.
    """
    directory = shared_directory()
    if directory is None:
        return True
    try:
        report_path(directory, pid).unlink(missing_ok=True)
        archive(directory, pid)
    except TimeoutError:
        return False
    except OSError as error:
        directory_faults(directory).failed("ended workers", error)
    except Exception:
        # A failure of metrics must not end the supervisor.
        logger.exception("The metrics of the ended worker %d could not be archived.", pid)
    else:
        directory_faults(directory).works("ended workers")
    return True


@contextlib.asynccontextmanager
async def shared_metrics() -> AsyncIterator[None]:
    """Share the metrics of this process with the other workers until the end of the block.

    Does nothing in a process that does not share its metrics.
    """
    directory, worker = shared_directory(), this_worker()
    if directory is None or worker is None:
        yield
        return
    with _keeping(directory):
        async with worker.sharing():
            yield


@cache
def this_worker() -> Worker | None:
    """The worker that shares the metrics of this process; None if they are not shared."""
    directory = shared_directory()
    # If the variable is empty, the library would store the files in the current directory.
    if directory is None or values.ValueClass is values.MutexValue:
        return None
    collectors = (
        circuit_breaker_collector,
        call_duration_metrics,
        request_metrics,
        pool_metrics,
        fleet_metrics,
    )
    return Worker(directory, SharedMetrics(collectors))


def _remove(directory: Path, *, owner: int) -> None:
    # A forked child inherits the exit handlers of its parent.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
