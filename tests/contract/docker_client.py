"""The unmodified docker client against canned answers: what it prints is the specification of `--format`.

`python -m tests.contract.docker_client` records `tests/unit/gotemplate_corpus.json` again.
"""

from __future__ import annotations

import http.server
import json
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CORPUS = Path(__file__).parent.parent / "unit" / "gotemplate_corpus.json"
OBJECTS = {"container": ("/containers/c/json", "c"), "network": ("/networks/n", "n"), "image": ("/images/i/json", "i")}


class CannedApi:
    """An Engine API on a unix socket that answers each path with one JSON value, and remembers what was asked."""

    def __init__(self, directory: Path, answers: Mapping[str, Any]) -> None:
        self.path = str(directory / "canned.sock")
        self.requests: list[str] = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_arguments: object) -> None:
                pass

            def answer(self) -> None:
                path = urlsplit(self.path).path
                if path.startswith("/v1."):
                    path = "/" + path.split("/", 2)[2]
                api.requests.append(f"{self.command} {self.path}")
                is_known = path == "/_ping" or path in answers
                body = b"OK" if path == "/_ping" else json.dumps(answers.get(path, {"message": f"no {path}"})).encode()
                self.send_response(200 if is_known else 404)
                self.send_header("Api-Version", "1.50")
                self.send_header("Ostype", "linux")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = answer

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self._server = Server(self.path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def docker() -> str:
    """The docker client's path, "" when this machine has none."""
    return shutil.which("docker") or ""


def inspect(url: str, kind: str, template: str) -> str:
    """What `docker KIND inspect -f TEMPLATE` prints; errors begin with "ERROR "."""
    command = [docker(), "-H", url, kind, "inspect", OBJECTS[kind][1], "-f", template]
    result = subprocess.run(command, capture_output=True, timeout=20, check=False)
    if result.returncode:
        return "ERROR " + result.stderr.decode().strip()
    return result.stdout.decode()[:-1]


def record(directory: Path) -> None:
    """Ask the docker client for every answer of the corpus again."""
    corpus = json.loads(CORPUS.read_text())
    api = CannedApi(directory, corpus["answers"])
    try:
        cases = [[kind, text, inspect(api.url, kind, text)] for kind, text, _ in corpus["cases"]]
    finally:
        api.close()
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    answers = json.dumps(corpus["answers"], indent=1, ensure_ascii=False)
    CORPUS.write_text(f'{{"answers": {answers},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        record(Path(scratch))
