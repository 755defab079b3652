"""Messages over a socket: a small head, and the buffers that it speaks of, which travel without being copied.

A frame is the length of the head and the number of buffers, then the length of each buffer, then all of them.
"""

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

HEADER = struct.Struct(">QI")
LENGTH = struct.Struct(">Q")
MAX_HEAD = 16 << 20  # bytes: what the head describes takes many times as much memory once it is decoded
MAX_BUFFERS = 1 << 14
PARTS = 512  # given to the system at a time


class Message(NamedTuple):
    """What crosses: a head, and buffers of raw data."""

    head: bytes
    buffers: list[memoryview] = []  # noqa: RUF012 never changed


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

    def send(self, message: Message, deadline: float | None = None) -> None:
        """Send one message; raises TimeoutError after `deadline` (time.monotonic()), Closed if nobody listens."""
        head, buffers = message
        lengths = b"".join(LENGTH.pack(len(buffer)) for buffer in buffers)
        parts = [memoryview(part) for part in (HEADER.pack(len(head), len(buffers)) + lengths, head, *buffers)]
        while parts:
            count = self._attempt(self._send_some, parts[:PARTS], select.POLLOUT, deadline)
            while parts and count >= len(parts[0]):
                count -= len(parts.pop(0))
            if count:
                parts[0] = parts[0][count:]

    def receive(self, deadline: float | None = None) -> Message:
        """The next message; raises TimeoutError after `deadline`, Closed at the end, ValueError over the limit."""
        length, count = HEADER.unpack(self._read(HEADER.size, deadline))
        if length > MAX_HEAD or count > MAX_BUFFERS:
            raise ValueError(f"a head of {length} bytes with {count} buffers is over {MAX_HEAD} or {MAX_BUFFERS}")
        lengths = [size for (size,) in LENGTH.iter_unpack(self._read(LENGTH.size * count, deadline))]
        if length + sum(lengths) > self.limit:
            raise ValueError(f"a message of {length + sum(lengths)} bytes is over the limit of {self.limit}")
        return Message(bytes(self._read(length, deadline)), [self._read(size, deadline) for size in lengths])

    def serve_watched(self) -> None:
        """Serve the watched files until none has anything to read."""
        while self._serve(0, 0.0):
            pass

    def _read(self, length: int, deadline: float | None) -> memoryview:
        memory = memoryview(np.empty(length, np.uint8))  # pages are taken only as data arrives
        rest = memory
        while rest:
            count = self._attempt(self._receive_some, rest, select.POLLIN, deadline)
            if not count:
                raise Closed("the connection is closed")
            rest = rest[count:]
        return memory

    def _send_some(self, parts: list[memoryview]) -> int:
        return self.connection.sendmsg(parts, (), socket.MSG_DONTWAIT)

    def _receive_some(self, memory: memoryview) -> int:
        return self.connection.recv_into(memory, 0, socket.MSG_DONTWAIT)

    def _attempt(self, action: Callable[[object], int], argument: object, event: int, deadline: float | None) -> int:
        """What a non-blocking action returns, as soon as it can be done."""
        while True:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError
            try:
                return action(argument)
            except BlockingIOError:
                self._serve(event, None if deadline is None else max(0.0, deadline - time.monotonic()))
            except OSError as error:
                raise Closed(str(error)) from None

    def _serve(self, event: int, seconds: float | None) -> bool:
        """Wait for an event of the connection, and serve the watched files; False if nothing happened in time."""
        poll = select.poll()
        if event:
            poll.register(self.connection, event)
        for file in self.watched:
            poll.register(file, select.POLLIN)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        for file, _ in ready:
            if file in self.watched:
                self.watched[file]()
        return bool(ready)
