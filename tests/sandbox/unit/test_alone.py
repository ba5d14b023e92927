"""The sandbox is its own process and imports little of the service."""

import subprocess
import sys

PROGRAM = """
import sys
import example_service.sandbox.__main__
print(*sorted({name.split(".")[1] for name in sys.modules if name.startswith("example_service.")}))
"""


def test_the_process_loads_nothing_of_the_service() -> None:
    """It starts quickly, and an error in the service cannot affect it."""
    loaded = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == ["sandbox"]
