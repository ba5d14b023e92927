"""Which generation of forks this process is, so that a guard can tell that it has a new parent."""

import os

generation = 0
"""How often this process, or one of its ancestors, has become the child of `os.fork`."""


def _count() -> None:
    global generation  # noqa: PLW0603 - A process has one history.
    generation += 1


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not have it.
    os.register_at_fork(after_in_child=_count)
