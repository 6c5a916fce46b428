"""One question to the name server at 127.0.0.11, asked from inside a sandbox as a program there would.

May import wire. Must never know what the answer should be.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from ipaddress import ip_address
from socket import socket

from tsunagu.rules.names import RESOLVER_ADDRESS
from tsunagu.wire import dns


async def ask(sock: socket, name: str, family: int, seconds: float) -> list[str]:
    """Return the addresses that are answered for `name`; closes `sock`, a UDP socket opened inside the sandbox.

    Raises OSError, TimeoutError, dns.Malformed.
    """
    with sock:
        encoded = dns.encode_name(name)
        if encoded is None:
            return []
        identifier = secrets.token_bytes(2)
        asked = dns.question(encoded, dns.A if family == 4 else dns.AAAA)
        query = identifier + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + asked
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, (RESOLVER_ADDRESS, 53))
            await loop.sock_sendall(sock, query)
            while True:
                reply = await loop.sock_recv(sock, 4096)
                if dns.answers_question(reply, identifier, asked):
                    return [str(ip_address(address)) for address in dns.addresses(reply)]
