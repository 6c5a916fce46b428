"""Start-up time is most of what a short command takes: no slow module may creep onto the way of the common commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsunagu.cli import install_launcher
from unit.canned_engine import ID, SOURCE, CannedEngine, Connection, Request, serving

FORBIDDEN = {
    "argparse",
    "asyncio",
    "ast",
    "collections",
    "contextlib",
    "dataclasses",
    "datetime",
    "email",
    "enum",
    "functools",
    "http",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "msgspec",
    "os",
    "pathlib",
    "random",
    "re",
    "selectors",
    "shutil",
    "signal",
    "site",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "typing",
    "urllib",
}
WEB = {"Id": ID, "Name": "/web", "Config": {"Tty": False}}


@pytest.fixture
def engine(tmp_path: Path):
    def session(_request: Request, connection: Connection) -> None:
        connection.upgrade()
        connection.frame(1, b"x")

    with serving(tmp_path) as engine:
        engine.routes |= {
            "GET /containers/json": [],
            "GET /version": {"Version": "1", "Components": []},
            "GET /networks": [],
            "POST /networks/create": (201, {"Id": "n"}),
            "POST /containers/create": (201, {"Id": ID}),
            f"POST /containers/{ID}/start": (204, None),
            f"POST /containers/{ID}/attach": session,
            f"POST /containers/{ID}/wait": {"StatusCode": 0},
            "POST /containers/web/exec": (201, {"Id": "e"}),
            "POST /exec/e/start": session,
            "GET /exec/e/json": {"ExitCode": 0},
            "POST /containers/web/stop": (204, None),
            "DELETE /containers/web": (204, None),
            "GET /containers/web/json": WEB,
            "GET /containers/web/logs": lambda _request, connection: connection.answer(200, b""),
        }
        yield engine


@pytest.mark.parametrize(
    "words",
    [
        "ps",
        "ps -a --format {{.Names}}",
        "version",
        "run --rm -p 80:80 -v /a:/b --network app --ip 1.2.3.4 alpine true",
        "run -d -e A=1 alpine",
        "exec web ls",
        "stop web",
        "rm -f web",
        "network ls",
        "network create app",
        "logs web",
        "inspect web",
        "inspect -f {{.Name}} web",
    ],
)
def test_no_slow_module_is_imported(engine: CannedEngine, words: str) -> None:
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); from tsunagu.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-IS", "-X", "importtime", "-c", code, *words.split()],
        env={"DOCKER_HOST": engine.host, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tsunagu.cli.main" in modules
    slow = {module for module in modules if module.partition(".")[0] in FORBIDDEN}
    assert not slow


def test_the_launcher_starts_without_site_and_with_compiled_files(tmp_path: Path) -> None:
    path = tmp_path / "tsunagu"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": SOURCE}
    program = [sys.executable, "-m", "tsunagu.cli.install_launcher", str(path)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == f"wrote {path}\n"
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#!/") and lines[0].endswith(" -IS") and os.access(path, os.X_OK)
    compiled = Path(SOURCE) / "tsunagu" / "cli" / "__pycache__"
    assert list(compiled.glob("main.*.pyc"))
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.startswith("Tsunagu version ")


def test_a_file_that_does_not_compile_is_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_launcher, "_compile", lambda path: False)
    assert install_launcher.main([str(tmp_path / "tsunagu")]) == 1
    assert not (tmp_path / "tsunagu").exists()
