"""Write the `tsunagu` command: `python -m tsunagu.cli.install_launcher [PATH]` (default: beside this interpreter).

The launcher starts the system interpreter without site-packages and without `site` (`-I -S`), which halves the start-up
time; the engine's interpreter, which has the packages, is named in it for `tsunagu daemon`. Byte code is compiled here,
because a read-only or PYTHONDONTWRITEBYTECODE installation would otherwise compile the sources at every command.
May import: everything of the standard library.
"""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

_TEXT = """#!{interpreter} -IS
# Written by `python -m tsunagu.cli.install_launcher`; run that again after moving the source or the interpreter.
import sys
sys.path.insert(0, {source!r})
sys._tsunagu_python = {engine!r}
from tsunagu.cli.main import main
main()
"""


# What a command may import; the engine's own files are compiled when it first runs.
_PARTS = ("__init__.py", "client.py", "jsontext.py", "cli", "wire")


def _compile(path: Path) -> bool:
    if path.is_dir():
        return bool(compileall.compile_dir(path, quiet=1))
    return bool(compileall.compile_file(path, quiet=1))


def main(arguments: list[str]) -> int:
    """Write the launcher. Returns the exit code."""
    path = Path(arguments[0]) if arguments else Path(sys.prefix) / "bin" / "tsunagu"
    package = Path(__file__).resolve().parent.parent
    # The interpreter behind a virtual environment: it does not look for pyvenv.cfg, and -S needs no site-packages.
    interpreter = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    text = _TEXT.format(interpreter=interpreter, source=str(package.parent), engine=sys.executable)
    if not all(_compile(package / part) for part in _PARTS):
        return 1  # compileall has named the file and the error
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o755)
    temporary.replace(path)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
