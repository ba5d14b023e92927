"""The part of curl that the pages use, for machines without it: `python curl.py -s -i URL`."""

import argparse
import sys
import time
from pathlib import Path

import httpx


def install(folder: Path) -> Path:
    """Create a program `curl` that runs this file.

    Returns:
        The folder to add to PATH.
    """
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    program = programs / "curl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    program.chmod(0o755)
    return programs


def main() -> None:
    """Send one request and write the answer as curl does."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-o", "--output", default="-")
    parser.add_argument("-w", "--write-out", default="")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    parser.add_argument("url")
    options = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in options.header)
    method = options.request or ("GET" if options.data is None else "POST")
    started = time.perf_counter()
    response = httpx.request(
        method, options.url, headers=headers, content=options.data, trust_env=False, timeout=60
    )
    answer = response.text
    if options.include:
        head = [f"{response.http_version} {response.status_code} {response.reason_phrase}"]
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        answer = "\r\n".join(head) + "\r\n\r\n" + answer
    if options.output == "-":
        sys.stdout.write(answer)
    else:
        Path(options.output).write_text(answer)
    sys.stdout.write(
        options.write_out.replace(r"\n", "\n")
        .replace("%{http_code}", str(response.status_code))
        .replace("%{time_total}", f"{time.perf_counter() - started:.6f}")
    )


if __name__ == "__main__":
    main()
