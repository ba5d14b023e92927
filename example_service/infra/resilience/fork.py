"""Counts forks, so that a guard can notice that it is in a child process."""

import os

generation = 0
"""The number of forks between the first process and this one."""


def _count() -> None:
    global generation  # noqa: PLW0603 - There is one per process.
    generation += 1


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not have it.
    os.register_at_fork(after_in_child=_count)
