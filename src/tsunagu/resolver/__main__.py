"""Entry of the resolver process. The engine runs this file with `python -I -S`, so that nothing but the standard
library and our own modules is ever imported; all imports happen before the root directory is given up.

Arguments: the control socket's descriptor, an empty directory to live in.
"""

from __future__ import annotations

import os
import signal
import sys


def main(descriptor: int, empty_directory: str) -> None:
    """Serve until the engine says so."""
    import socket

    from tsunagu.resolver import privileges
    from tsunagu.resolver.control import Control
    from tsunagu.resolver.loop import Loop
    from tsunagu.resolver.server import Server

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner = os.geteuid()
    listener = socket.socket(fileno=descriptor)
    privileges.name_process("tsunagu-dns")
    loop = Loop()
    Control(loop, Server(loop), listener, owner)
    privileges.drop(empty_directory)  # nothing from outside has been read until here
    loop.run()


if __name__ == "__main__":
    # Isolated mode leaves the script's directory out of sys.path; the package stands two directories above it.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    main(int(sys.argv[1]), sys.argv[2])
