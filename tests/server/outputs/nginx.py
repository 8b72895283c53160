"""A real nginx with its RTMP module on a free port, for the tests of outputs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

MODULES = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

_CONFIG = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
rtmp {{
    server {{
        listen 127.0.0.1:{port};
        application live {{ live on; allow publish 127.0.0.1; allow play 127.0.0.1; }}
    }}
}}
"""


def is_installed() -> bool:
    return shutil.which("nginx") is not None and MODULES.exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """A context manager around one process; ``stop`` and ``start`` are a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "nginx.conf").write_text(_CONFIG.format(module=MODULES, folder=folder, port=self.port))

    def url(self, key: str) -> str:
        return f"rtmp://127.0.0.1:{self.port}/live/{key}"

    def start(self) -> None:
        # Debian's nginx opens its default log before it reads where the log is.
        command = ["nginx", "-e", str(self._folder / "error.log"), "-c", str(self._folder / "nginx.conf")]
        self._process = subprocess.Popen([*command, "-p", str(self._folder)])
        end_s = time.monotonic() + 5
        while time.monotonic() < end_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError((self._folder / "error.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(5)
            self._process = None

    def __enter__(self) -> Nginx:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
