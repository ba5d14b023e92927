#!/usr/bin/env python3
"""Run all checks of the sources concurrently, then list the findings of each.

A failing check does not stop the others. Exits with 1 if any of them failed.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# The slowest check comes first, so that the others run beside it.
CHECKS = (
    "mypy",
    "lint-imports --no-logo",
    "ruff check",
    "ruff format --check",
    "python -m scripts.template.parts",
    "hadolint Dockerfile",
    "actionlint -shellcheck= -pyflakes= .github/workflows/*.yml",
    "zizmor --offline --no-progress --quiet --pedantic .github .pre-commit-config.yaml",
    *(
        f"check-jsonschema --builtin-schema {schema} {files}"
        for schema, files in {
            "vendor.compose-spec": "docker-compose.yml",
            "vendor.github-workflows": ".github/workflows/*.yml",
            "vendor.dependabot": ".github/dependabot.yml",
            "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
            "vendor.github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
        }.items()
    ),
)


class Result(NamedTuple):
    """The result of a check."""

    check: str
    passed: bool
    findings: str
    seconds: float


def run(check: str) -> Result:
    """Run one check with the programs of the environment that runs this file."""
    program, *words = check.split()
    arguments = [part for word in words for part in sorted(map(str, ROOT.glob(word))) or [word]]
    start = time.monotonic()
    done = subprocess.run(  # noqa: S603
        [Path(sys.executable).parent / program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Result(check, done.returncode == 0, done.stdout, time.monotonic() - start)


def results() -> Iterator[Result]:
    """Run as many checks at a time as there are processors, and yield each when it ends."""
    with ThreadPoolExecutor() as threads:
        for future in as_completed([threads.submit(run, check) for check in CHECKS]):
            yield future.result()


def main() -> int:
    """Report each check when it ends, then list the findings of those that failed."""
    failed = []
    for result in results():
        verdict = "passed" if result.passed else "FAILED"
        print(f"{verdict} in {result.seconds:4.1f} s: {result.check}", flush=True)  # noqa: T201
        if not result.passed:
            failed.append(result)
    for result in failed:
        print(f"\n--- {result.check}\n{result.findings.rstrip()}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
