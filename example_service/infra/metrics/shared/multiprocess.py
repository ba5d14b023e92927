"""One set of metrics for a service of several worker processes.

Without `PROMETHEUS_MULTIPROC_DIR` in the environment nothing here does anything: a process exports
its own metrics. With it, prometheus_client keeps metrics in files of that directory, one set for
each process, and any worker can add them up. The library writes its own kinds of metrics there as
they change, but not those of collectors, such as ours. So every worker copies the metrics of its
collectors into its files: once a second, when it is scraped itself, and at its end. So a scrape is
at most a second behind, and a worker that is killed loses at most the last second.

The process that starts the workers calls:

    prepare_multiprocess_directory()  # Before the first worker starts.
    mark_worker_dead(pid)             # After the end of each worker, however it ended.

Each worker enters, in its lifespan:

    async with shared_metrics():
        yield

The library decides at its import whether a process keeps its metrics in files. So workers must be
new processes, not forks of one that had imported it before the directory was prepared.
"""

import atexit
import contextlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client import values

from example_service.core.exceptions import SettingProblem, SettingsError
from example_service.infra.fleet.reports import report_path
from example_service.infra.fleet.shared_directory import (
    DIRECTORY_VARIABLE,
    clear_directory,
    locked,
    shared_directory,
)
from example_service.infra.metrics.call_durations import call_duration_metrics
from example_service.infra.metrics.circuit_breakers import circuit_breaker_collector
from example_service.infra.metrics.database_pool import pool_metrics
from example_service.infra.metrics.fleet import fleet_metrics
from example_service.infra.metrics.http import request_metrics
from example_service.infra.metrics.shared.allocated import allocate_before_use
from example_service.infra.metrics.shared.copies import SharedMetrics
from example_service.infra.metrics.shared.files import clear, put_away
from example_service.infra.metrics.shared.worker import Worker

logger = logging.getLogger(__name__)

_PREFIX: Final = "example-service-"
_OWNER: Final = "owner"
"""A file that the supervisor keeps locked for as long as it lives."""

_claims: Final = contextlib.ExitStack()

allocate_before_use()


def prepare_multiprocess_directory() -> Path:
    """Let the processes that start from now on share their metrics.

    Creates a temporary directory, which is removed when this process ends, and sets
    `PROMETHEUS_MULTIPROC_DIR` to it. If that variable is already set, its directory is created if
    needed, and emptied of the files of earlier processes, which would otherwise be counted again.

    Returns:
        The directory.

    Raises:
        SettingsError: If the directory in the variable cannot be used.
    """
    directory = shared_directory()
    if directory is None:
        try:
            _remove_left_overs(Path(tempfile.gettempdir()))
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            problem = "is needed by several workers: no directory for temporary files is writable"
            raise SettingsError([SettingProblem("TMPDIR", problem, "TMPDIR=/run")]) from error
        _claims.enter_context(locked(directory / _OWNER, exclusive=True))
        os.environ[DIRECTORY_VARIABLE] = str(directory)
        atexit.register(_remove, directory, owner=os.getpid())
        return directory
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (fault := _fault_of(directory)) is not None:
            raise _unusable(fault)
        clear(directory)
        clear_directory(directory)
    except OSError as error:
        raise _unusable(str(error.strerror)) from error
    return directory


def _fault_of(directory: Path) -> str | None:
    """Why others could change what is in a directory; None if only this user can."""
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others may write to it; chmod go-w"
    return None


def _remove_left_overs(parent: Path) -> None:
    """Remove the directories of services that were killed: nothing locks them any more."""
    for directory in parent.glob(f"{_PREFIX}*"):
        owner = directory / _OWNER
        with contextlib.suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                continue
            # One that is just being made has no such file yet.
            if owner.exists():
                with locked(owner, exclusive=True, wait_seconds=0.0):
                    shutil.rmtree(directory, ignore_errors=True)


def _unusable(why: str) -> SettingsError:
    problem = f"names a directory that cannot be used: {why}"
    example = f"{DIRECTORY_VARIABLE}=/run/example-service"
    return SettingsError([SettingProblem(DIRECTORY_VARIABLE, problem, example)])


def keep_to_itself() -> None:
    """Have this process show its own figures, whatever directory the environment names.

    A single process shares them with no other, and would add what earlier ones left there.
    """
    os.environ.pop(DIRECTORY_VARIABLE, None)
    values.ValueClass = values.MutexValue


def mark_worker_dead(pid: int) -> bool:
    """Leave a worker that has ended out of what living workers add up to.

    Its counters stay in the sums. Without a directory of shared metrics this does nothing.

    Args:
        pid: The process id of the worker.

    Returns:
        Whether that is done; otherwise a process that is stopped has them locked, so ask again.
    """
    directory = shared_directory()
    if directory is None:
        return True
    try:
        report_path(directory, pid).unlink(missing_ok=True)
        put_away(directory, pid)
    except TimeoutError:
        return False
    except Exception:
        # The supervisor must not fail because of metrics.
        logger.exception("The metrics of the ended worker %d could not be put away.", pid)
    return True


@contextlib.asynccontextmanager
async def shared_metrics() -> AsyncIterator[None]:
    """Share the metrics of this process with the other workers until the end of the block.

    Does nothing in a process that has its metrics to itself.
    """
    worker = this_worker()
    if worker is None:
        yield
        return
    async with worker.sharing():
        yield


@cache
def this_worker() -> Worker | None:
    """This process as a worker that shares its metrics; None where it has them to itself."""
    directory = shared_directory()
    # With the variable set to nothing the library would share them in the current directory.
    if directory is None or values.ValueClass is values.MutexValue:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    collectors = (
        circuit_breaker_collector,
        call_duration_metrics,
        request_metrics,
        pool_metrics,
        fleet_metrics,
    )
    return Worker(directory, SharedMetrics(collectors))


def _remove(directory: Path, *, owner: int) -> None:
    # A forked child inherits what is to be done at exit.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
