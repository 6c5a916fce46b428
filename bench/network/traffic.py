"""One end of a bulk transfer over TCP, as a program, so that it can be put into any network namespace by nsenter(1).

    traffic.py receive PROCESSOR PORT     prints "ready", then for each transfer the bytes per second it received
    traffic.py send PROCESSOR ADDRESS PORT SECONDS

Both ends are pinned, because on two processors the scheduler decides more than the network does. Standard library only.
"""

from __future__ import annotations

import os
import socket
import sys
import time

BUFFER = 1 << 20  # bytes of one call: Python's share of the time is then nothing


def receive(port: int) -> None:
    """Take one transfer after the other, for ever."""
    listener = socket.create_server(("", port))
    print("ready", flush=True)
    buffer = bytearray(BUFFER)
    while True:
        connection, _ = listener.accept()
        with connection:
            total, started = 0, time.perf_counter()
            while count := connection.recv_into(buffer):
                total += count
            print(total / (time.perf_counter() - started), flush=True)


def send(address: str, port: int, seconds: float) -> None:
    """Send as fast as it goes for `seconds`."""
    payload = bytes(BUFFER)
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.settimeout(None)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            connection.sendall(payload)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2]) % (os.cpu_count() or 1)})
    if sys.argv[1] == "receive":
        receive(int(sys.argv[3]))
    else:
        send(sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
