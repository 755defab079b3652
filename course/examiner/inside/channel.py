"""Framed messages over a socket: eight bytes of length, then as many bytes."""

import selectors
import socket
import struct
import time
from collections.abc import Callable

HEADER = struct.Struct(">Q")
STEP = 1 << 20  # bytes read at a time: a frame that only claims to be large allocates nothing


class Closed(EOFError):
    """The other side is gone."""


class Channel:
    """One end of a connection that sends and receives whole messages.

    While it waits it serves `watched` files: each is called when its file can be read.
    """

    def __init__(self, connection: socket.socket, limit: int):
        self.connection = connection
        self.limit = limit  # bytes in one received message
        self.watched: dict[int, Callable[[], None]] = {}  # file descriptor -> what to do when it can be read

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Send one message; raises TimeoutError after `deadline` (time.monotonic()), Closed if nobody listens."""
        view = memoryview(HEADER.pack(len(message)) + message)
        while view:
            self._wait(selectors.EVENT_WRITE, deadline)
            try:
                view = view[self.connection.send(view[:STEP], socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Closed(str(error)) from None

    def receive(self, deadline: float | None = None) -> bytes:
        """The next message; raises TimeoutError after `deadline`, Closed at the end, ValueError over the limit."""
        (length,) = HEADER.unpack(self._read(HEADER.size, deadline))
        if length > self.limit:
            raise ValueError(f"a message of {length} bytes is over the limit of {self.limit}")
        return self._read(length, deadline)

    def serve_watched(self) -> None:
        """Serve the watched files until none has anything to read."""
        while self._serve(self._selector(0), 0.0):
            pass

    def _read(self, length: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait(selectors.EVENT_READ, deadline)
            try:
                part = self.connection.recv(min(STEP, length - len(data)))
            except OSError as error:
                raise Closed(str(error)) from None
            if not part:
                raise Closed("the connection is closed")
            data += part
        return bytes(data)

    def _wait(self, event: int, deadline: float | None) -> None:
        while True:
            seconds = None if deadline is None else deadline - time.monotonic()
            if seconds is not None and seconds <= 0:
                raise TimeoutError
            if self.connection in self._serve(self._selector(event), seconds):
                return

    def _selector(self, event: int) -> selectors.BaseSelector:
        selector = selectors.DefaultSelector()
        if event:
            selector.register(self.connection, event)
        for file in self.watched:
            selector.register(file, selectors.EVENT_READ)
        return selector

    def _serve(self, selector: selectors.BaseSelector, seconds: float | None) -> list:
        with selector:
            ready = [key.fileobj for key, _ in selector.select(seconds)]
        for file in ready:
            if file in self.watched:
                self.watched[file]()
        return ready
