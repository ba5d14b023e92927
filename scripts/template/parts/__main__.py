"""Check that the lists of the parts fit the current files: python -m scripts.template.parts.

For `make lint`. In a project that has another name or lacks a part, there is nothing to check.
"""

import sys

from scripts.template.parts import load_parts
from scripts.template.rename import RECORD, ROOT


def main() -> int:
    """Print what does not fit. The exit status is 1 if there is any."""
    parts = load_parts()
    if (ROOT / RECORD).exists() or any(part.is_gone(ROOT) for part in parts.values()):
        return 0
    misfits = [
        f"{part.file}: {misfit}"
        for part in parts.values()
        for misfit in part.misfits(ROOT, [parts[name] for name in part.first])
    ]
    print(*misfits, sep="\n\n")  # noqa: T201
    return 1 if misfits else 0


if __name__ == "__main__":
    sys.exit(main())
