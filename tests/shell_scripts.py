"""Shell scripts that replace programs."""

from pathlib import Path


def write_script(path: Path, text: str) -> Path:
    """Write an executable shell script, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path
