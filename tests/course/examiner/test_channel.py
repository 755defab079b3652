"""Whole messages over a socket, deadlines, and watched files."""

import contextlib
import os
import socket
import threading
import time

import psutil
import pytest
import torch

from course.examiner.inside.channel import HEADER, LENGTH, MAX_BUFFERS, MAX_HEAD, PARTS, Channel, Closed, Message


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield Channel(left, 1 << 24), Channel(right, 1 << 24)


def exchange(pair, *messages: Message) -> list[tuple[bytes, list[bytes]]]:
    left, right = pair
    sender = threading.Thread(target=lambda: [left.send(message) for message in messages])
    sender.start()
    received = [right.receive() for _ in messages]
    sender.join()
    return [(head, [bytes(buffer) for buffer in buffers]) for head, buffers in received]


def test_messages_arrive_whole_and_in_order(pair):
    large = os.urandom(3 << 20)
    messages = [Message(b""), Message(b"one"), Message(large), Message(b"two", [memoryview(large), memoryview(b"")])]
    assert exchange(pair, *messages) == [(b"", []), (b"one", []), (large, []), (b"two", [large, b""])]


def test_more_buffers_than_the_system_takes_at_a_time_arrive(pair):
    buffers = [memoryview(bytes([number % 256]) * number) for number in range(2 * PARTS + 1)]
    assert exchange(pair, Message(b"many", buffers)) == [(b"many", [bytes(buffer) for buffer in buffers])]


def test_nothing_by_the_deadline_is_a_timeout(pair):
    with pytest.raises(TimeoutError):
        pair[0].receive(time.monotonic() + 0.05)


def test_a_reader_that_never_reads_is_a_timeout(pair):
    with pytest.raises(TimeoutError):
        pair[0].send(Message(bytes(8 << 20)), time.monotonic() + 0.1)


def test_the_end_of_the_other_side_is_closed(pair):
    left, right = pair
    left.connection.sendall(HEADER.pack(10, 0) + b"123")
    left.connection.close()
    with pytest.raises(Closed):
        right.receive()


@pytest.mark.parametrize(
    "claim, reason",
    [
        (HEADER.pack(1 << 60, 0), f"over {MAX_HEAD}"),
        (HEADER.pack(1, MAX_BUFFERS + 1), f"or {MAX_BUFFERS}"),
        (HEADER.pack(1, 2) + LENGTH.pack(1 << 60) * 2, "over the limit of 16777216"),
        (HEADER.pack(1, 2) + LENGTH.pack((1 << 24) - 1) + LENGTH.pack(1), "over the limit of 16777216"),
    ],
)
def test_claimed_lengths_over_the_limit_are_refused_before_anything_is_read(pair, claim, reason):
    left, right = pair
    left.connection.sendall(claim)
    with pytest.raises(ValueError, match=reason):
        right.receive(time.monotonic() + 1)


def test_a_claim_of_much_data_takes_no_memory_before_it_arrives(pair):
    left, right = pair
    right.limit = 8 << 30
    left.connection.sendall(HEADER.pack(0, 1) + LENGTH.pack(4 << 30))
    before = resident_bytes()
    with pytest.raises(TimeoutError):
        right.receive(time.monotonic() + 0.05)
    assert resident_bytes() - before < 64 << 20


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def test_a_sender_of_crumbs_is_stopped_by_the_deadline(pair):
    left, right = pair
    left.connection.sendall(HEADER.pack(1 << 20, 0))
    stop = threading.Event()

    def crumble():
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):
                left.connection.send(b"x", socket.MSG_DONTWAIT)

    sender = threading.Thread(target=crumble)
    sender.start()
    try:
        with pytest.raises(TimeoutError):
            right.receive(time.monotonic() + 0.1)
    finally:
        stop.set()
        sender.join()


def test_data_is_received_where_it_stays(pair):
    left, right = pair
    tensor = torch.arange(1 << 10, dtype=torch.uint8)
    left.send(Message(b"", [memoryview(tensor.numpy())]))
    _, (buffer,) = right.receive()
    assert not buffer.readonly and torch.equal(torch.frombuffer(buffer, dtype=torch.uint8), tensor)


def test_watched_files_are_served_while_it_waits(pair):
    left, right = pair
    reading, writing = os.pipe()
    seen = []
    right.watched[reading] = lambda: seen.append(os.read(reading, 100))
    os.write(writing, b"printed")
    left.send(Message(b"reply"))
    assert right.receive().head == b"reply"
    right.serve_watched()
    assert b"".join(seen) == b"printed"
    os.close(reading)
    os.close(writing)
