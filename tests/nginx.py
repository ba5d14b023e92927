"""A real nginx in front of the service, with the configuration from the documentation."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import lasting_port
from tests.real_parts import missing

DOCS = Path(__file__).parents[1] / "docs"


def blocks_of(page: str) -> list[str]:
    """The nginx configuration blocks of a page of the documentation."""
    return re.findall(r"```nginx\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@contextmanager
def running_nginx(folder: Path, service_port: int) -> Iterator[str]:
    """Run an nginx that is configured as in `security.md` and `deployment.md`, and yield its URL.

    Args:
        folder: An empty folder.
        service_port: The port of the service on 127.0.0.1.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        missing("no nginx: install Debian's nginx")
    port = lasting_port()
    (http,) = blocks_of("security.md")
    (below_a_path,) = blocks_of("deployment.md")
    # TLS needs a certificate, which this machine does not have.
    http = http.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};\n{below_a_path}")
    http = http.replace("127.0.0.1:8000", f"127.0.0.1:{service_port}")
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"pid {folder}/pid;\nerror_log {folder}/errors;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{http}\n}}\n"
    )
    # If nginx ran as root, its workers would be another user without access to the folder.
    command = [program, "-c", str(configuration), "-g", "daemon off; master_process off;"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
