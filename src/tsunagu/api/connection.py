"""One client connection on the event loop: bytes to requests, answers to bytes, with flow control both ways.

A request body is handed to its handler piece by piece, and reading stops while the handler is behind; a handler that
streams waits while the client is behind. A client that goes away cancels only handlers that say so
(`Route.is_cancellable`): a half-made container is worse than an unread answer. May import wire.http and the rest of
`api`; decides nothing about containers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol, cast

from tsunagu.model.errors import InvalidParameter
from tsunagu.services.tasks import spawn
from tsunagu.wire.http import Malformed, RequestHead, ServerConnection, Signal

from .hijack import Hijacked
from .request import Channel, Handler, Request, Response
from .router import Router, error_response, malformed_response

log = logging.getLogger("tsunagu.api")

READ_LIMIT = 256 << 10  # bytes of a body, of a stream or of pipelined requests kept before reading stops
TURN = 256 << 10  # bytes a handler may write before others get a turn on the loop
LINGER = 2.0  # seconds in which a refused upload may go on before the connection is cut


class Hangups(Protocol):
    """Tells a connection that nothing is read from when its peer has gone away for good."""

    def watch(self, connection: Connection, descriptor: int) -> None: ...

    def forget(self, descriptor: int) -> None: ...

    @property
    def is_closed(self) -> bool: ...


class Connection(asyncio.Protocol, Channel):
    """Serves requests one after the other until the client or the server closes."""

    def __init__(self, router: Router, connections: set[Connection], hangups: Hangups) -> None:
        self._router = router
        self._connections = connections
        self._hangups = hangups
        self._http = ServerConnection()
        self._transport: asyncio.Transport
        self._descriptor = -1
        self._request: Request | None = None
        self._handler: Handler | None = None
        self._task: asyncio.Task[None] | None = None
        self._body: deque[bytes] = deque()
        self._body_size = 0
        self._body_error: InvalidParameter | ConnectionError | None = None
        self._wake_body: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._hijacked: Hijacked | None = None
        self._is_writing_paused = False
        self._is_reading_paused = False
        self._is_dispatched = False
        self._is_gone = False
        self._is_lingering = False
        self._has_client_ended = False
        self._is_closing = False
        self._since_turn = 0

    def __repr__(self) -> str:
        doing = f"{self._request.method} {self._request.path}" if self._request else "idle"
        return f"<Connection {doing}{' gone' if self._is_gone else ''}>"

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._hangups.is_closed:  # accepted just before the server stopped
            self._transport.abort()
            return
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        if self._hijacked is not None:
            self._hijacked.feed(data)
            return
        self._http.receive(data)
        self._pump()

    def eof_received(self) -> bool:
        self._has_client_ended = True
        if self._is_lingering:
            return False
        if self._hijacked is not None:
            self._hijacked.feed_end()
        else:
            self._http.receive(b"")
            self._pump()
            if self._request is None:
                return False
        self._hangups.watch(self, self._descriptor)
        return True  # a half-close: what is under way is still answered

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        self._hangups.forget(self._descriptor)
        self._connections.discard(self)
        self._fail_body(ConnectionResetError("the client went away"))
        self._release_writer()
        if self._hijacked is not None:
            self._hijacked.feed_end()
        if self._task is not None and self._request is not None and self._request.is_cancellable:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._release_writer()
        if self._hijacked is None and not self._is_lingering:
            self._pump()

    def hung_up(self) -> None:
        """The peer has closed both directions (called by `Hangups`)."""
        self._transport.abort()

    # ---- requests

    def _pump(self) -> None:
        """Turn what was received into work, as far as it goes now."""
        while not self._is_writing_paused or self._is_dispatched:
            try:
                event = self._http.next_event()
            except Malformed as error:
                self._reject(error)
                return
            if type(event) is RequestHead:
                self._accept(event)
                if event.has_body:
                    self._dispatch()
            elif type(event) is bytes:
                self._feed_body(event)
            elif event is Signal.END:
                self._wake(self._wake_body)
                if not self._is_dispatched:
                    self._dispatch()
            elif event is Signal.CLOSED:
                if not self._is_dispatched:
                    self._close()
                return
            else:
                break
            if self._is_gone or self._is_lingering or self._hijacked is not None:
                return
        if self._http.buffered > READ_LIMIT:
            self._pause_reading()

    def _accept(self, head: RequestHead) -> None:
        self._body.clear()
        self._body_size = 0
        self._body_error = None
        self._is_dispatched = False
        self._request = Request(head, self)

    def _dispatch(self) -> None:
        self._is_dispatched = True
        request = cast(Request, self._request)
        try:
            answer = self._router.answer(request)
        except Exception as error:
            answer = error_response(error, request)
        if isinstance(answer, Response):
            self._send(answer)
            self._finish()
        else:
            self._task = spawn(self._run(answer, request), name=f"{request.method} {request.path}")
            # A task that is cancelled before its first step never touches the handler.
            self._task.add_done_callback(lambda _: answer.close())

    async def _run(self, handler: Handler, request: Request) -> None:
        try:
            try:
                response = await handler
            except asyncio.CancelledError:
                self._transport.abort()
                return
            except Exception as error:
                response = error_response(error, request)
                if self._hijacked is not None:
                    if not isinstance(error, ConnectionError):
                        log.warning("stream ended by an error request=%r error=%s", request, error, exc_info=error)
                    self._finish()
                    return
                if not self._http.may_respond and not self._is_gone:
                    # Half an answer is out: a cut connection tells the client that it is incomplete.
                    log.info("answer cut short request=%r error=%s", request, error)
                    self._transport.abort()
                    return
            if response is not None:
                self._send(response)
            self._finish()
        finally:
            self._task = None
        if not self._is_gone and self._hijacked is None:
            self._pump()

    def _send(self, response: Response) -> None:
        if self._is_gone:
            return
        body = self._http.respond(response.status, response.headers, response.body)
        self._transport.write(body)

    def _finish(self) -> None:
        """The answer is complete: make ready for the next request, or let the connection end."""
        self._is_dispatched = False
        request, self._request = self._request, None
        self._body.clear()
        self._body_size = 0
        if self._is_gone:
            return
        if self._hijacked is not None:
            self._hijacked.finish()
            return
        if request is not None and request.is_streaming:
            self._transport.write(self._http.end())
        if self._is_closing or not self._http.has_whole_request or not self._http.next_cycle():
            self._linger()
            return
        self._resume_reading()

    def _reject(self, error: Malformed) -> None:
        """Answer a broken request and close; a handler that is reading its body is told instead."""
        if self._is_dispatched:
            kind = ConnectionResetError if self._has_client_ended else InvalidParameter
            self._fail_body(kind(f"malformed request body: {error.message}"))
            return
        if self._http.may_respond:
            self._send(malformed_response(error))
        self._linger()

    # ---- ends

    def _close(self) -> None:
        self._transport.close()

    def _linger(self) -> None:
        """Close in a way that lets the client read the answer.

        Closing a unix socket with unread input resets it (unix(7): ECONNRESET), so input is taken and dropped until the
        client closes, for a short while.
        """
        if self._is_gone or self._is_lingering:
            return
        self._is_lingering = True
        if self._has_client_ended:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume_reading()
        asyncio.get_running_loop().call_later(LINGER, self._cut)

    def _cut(self) -> None:
        if not self._is_gone:
            # A slow reader of a long answer is still being served by the transport's buffer.
            if self._transport.get_write_buffer_size():
                self._transport.close()
            else:
                self._transport.abort()

    def shut_down(self) -> asyncio.Task[None] | None:
        """End the connection for a server stop: idle ones close; watchers and raw streams are cancelled.

        What runs behind a raw stream goes on without it. Returns the task of a handler that has to finish first.
        """
        self._is_closing = True
        if self._task is None:
            self._close()
        elif self._is_dispatched and not self._http.has_whole_request:
            self._fail_body(ConnectionResetError("the engine stops"))  # the rest of an upload may never come
        elif self._hijacked is not None or (self._request is not None and self._request.is_cancellable):
            self._task.cancel()
        return self._task

    def abort(self) -> None:
        """Cut the connection now."""
        if not self._is_gone:
            self._transport.abort()

    # ---- Channel: what a request's handler may do with its connection

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            if self._body:
                chunk = self._body.popleft()
                self._body_size -= len(chunk)
                if self._body_size < READ_LIMIT:
                    self._resume_reading()
                yield chunk
                continue
            if self._body_error is not None:
                raise self._body_error
            if self._http.has_whole_request:
                return
            if interim := self._http.continue_100():
                self._transport.write(interim)
            self._wake_body = asyncio.get_running_loop().create_future()
            await self._wake_body

    def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        if self._is_gone:
            raise ConnectionResetError("the client went away")
        self._transport.write(self._http.head(status, headers))

    async def write(self, data: bytes) -> None:
        if self._is_gone:
            raise ConnectionResetError("the client went away")
        await self.send(self._http.data(data))

    async def send(self, data: bytes) -> None:
        """Send raw bytes and wait while the client is behind; raises ConnectionResetError once it is gone.

        After a failed write asyncio reports the loss only in the next turn of the loop, hence `is_closing`. A client
        that reads as fast as a handler writes never makes it wait, so the loop is given a turn now and then.
        """
        self._transport.write(data)
        self._since_turn += len(data)
        if self._since_turn > TURN:
            self._since_turn = 0
            await asyncio.sleep(0)
        while self._is_writing_paused and not self._is_gone:
            self._wake_writer = self._wake_writer or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._wake_writer)
        if self._is_gone or self._transport.is_closing():
            raise ConnectionResetError("the client went away")

    def hijack(self, content_type: bytes, *, is_upgrade: bool) -> Hijacked:
        if self._is_gone:
            raise ConnectionResetError("the client went away")
        head, early = self._http.switch(content_type, is_upgrade=is_upgrade)
        self._hijacked = hijacked = Hijacked(self.send, self._pause_reading, self._resume_reading, self._linger)
        self._transport.write(head)
        if early:
            hijacked.feed(early)
        if self._has_client_ended:
            hijacked.feed_end()
        else:
            self._resume_reading()
        return hijacked

    # ---- flow control

    def _feed_body(self, data: bytes) -> None:
        self._body.append(data)
        self._body_size += len(data)
        if self._body_size >= READ_LIMIT:
            self._pause_reading()
        self._wake(self._wake_body)

    def _fail_body(self, error: InvalidParameter | ConnectionError) -> None:
        self._body_error = self._body_error or error
        self._wake(self._wake_body)

    def _release_writer(self) -> None:
        waiter, self._wake_writer = self._wake_writer, None
        self._wake(waiter)

    @staticmethod
    def _wake(future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.done():
            future.set_result(None)

    def _pause_reading(self) -> None:
        if not self._is_reading_paused and not self._is_gone:
            self._is_reading_paused = True
            self._transport.pause_reading()
            self._hangups.watch(self, self._descriptor)  # a paused transport does not notice that its peer is gone

    def _resume_reading(self) -> None:
        if self._is_reading_paused and not self._is_gone:
            self._is_reading_paused = False
            if not self._has_client_ended:
                self._hangups.forget(self._descriptor)
            if not self._transport.is_closing():
                self._transport.resume_reading()
