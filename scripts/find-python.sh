#!/bin/sh
# Print the path of the Python to build an environment with.
#
#   find-python.sh            the version in .python-version, or else any from 3.11
#   find-python.sh 3.12       only that version
#   find-python.sh 3.13t      only that version, without the global interpreter lock
#
# Each candidate is started as a check, because under pyenv a `python3.13` on PATH may be a shim
# that only prints an error. Prints one line on stderr and exits with 1 if none is suitable.
set -eu

read -r preferred < "${0%/*}/../.python-version" || true
required=${1:-}
unset PYTHONHOME PYTHONPATH UV_PYTHON VIRTUAL_ENV
without_venv=

# try CANDIDATE [VERSION]: print its path and end the search if it runs, has that version (or is
# new enough) and can create an environment. That needs ensurepip only without uv, which installs
# without pip. The path is that of the Python itself, even if the candidate is a shim or belongs to
# an activated environment.
try() {
    if [ ! -x "$1" ] || [ -d "$1" ]; then
        return 0
    fi
    answer=$("$1" -I -c '
import importlib.util, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
version += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
if sys.version_info[:2] < (3, 11) or version != (sys.argv[1] or version):
    sys.exit("another version")
verdict = "complete" if importlib.util.find_spec("ensurepip") or sys.argv[2] else "without-venv"
print(verdict, getattr(sys, "_base_executable", sys.executable))
' "${2:-}" "$uv" 2>/dev/null </dev/null) || return 0
    case $answer in
        "complete "*)
            printf '%s\n' "${answer#* }"
            exit 0
            ;;
        "without-venv "*) without_venv=${answer#* } ;;
    esac
}

# on_path NAME [VERSION]: try every NAME on PATH, because a good one may follow a failing shim.
on_path() {
    rest=$PATH:
    while [ -n "$rest" ]; do
        directory=${rest%%:*}
        rest=${rest#*:}
        try "${directory:-.}/$1" "${2:-}"
    done
}

# search VERSION: look on PATH, and then where pyenv and uv install Pythons.
search() {
    on_path "python$1" "$1"
    for candidate in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/${1%t}"*/bin/python; do
        try "$candidate" "$1"
    done
    if [ -n "$uv" ]; then
        try "$(uv python find --no-project --system "$1" 2>/dev/null </dev/null)" "$1"
    fi
}

uv=
if uv --version >/dev/null 2>&1 </dev/null; then
    uv=yes
fi

if [ -n "$required" ]; then
    search "$required"
else
    for version in "$preferred" 3.13 3.12 3.11; do
        search "$version"
    done
    on_path python3
    on_path python
fi

if [ -n "$without_venv" ]; then
    echo "$without_venv lacks Python's venv module: install it (Debian, Ubuntu: apt install python3-venv)." >&2
elif [ -n "$required" ]; then
    echo "Python $required is needed, but none was found that runs." >&2
else
    echo "Python 3.11 or newer is needed, but none was found that runs: install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13) and put it on PATH." >&2
fi
exit 1
