"""Whole messages over a socket, deadlines, and watched files."""

import os
import socket
import threading
import time

import pytest

from course.examiner.inside.channel import HEADER, Channel, Closed


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield Channel(left, 1 << 24), Channel(right, 1 << 24)


def test_messages_arrive_whole_and_in_order(pair):
    left, right = pair
    large = os.urandom(3 << 20)
    sender = threading.Thread(target=lambda: [left.send(message) for message in (b"", b"one", large)])
    sender.start()
    assert [right.receive() for _ in range(3)] == [b"", b"one", large]
    sender.join()


def test_nothing_by_the_deadline_is_a_timeout(pair):
    with pytest.raises(TimeoutError):
        pair[0].receive(time.monotonic() + 0.05)


def test_a_reader_that_never_reads_is_a_timeout(pair):
    with pytest.raises(TimeoutError):
        pair[0].send(bytes(8 << 20), time.monotonic() + 0.1)


def test_the_end_of_the_other_side_is_closed(pair):
    left, right = pair
    left.connection.sendall(HEADER.pack(10) + b"123")
    left.connection.close()
    with pytest.raises(Closed):
        right.receive()


def test_a_claimed_length_over_the_limit_is_refused_before_it_is_read(pair):
    left, right = pair
    left.connection.sendall(HEADER.pack(1 << 60))
    with pytest.raises(ValueError, match="over the limit of 16777216"):
        right.receive()


def test_watched_files_are_served_while_it_waits(pair):
    left, right = pair
    reading, writing = os.pipe()
    seen = []
    right.watched[reading] = lambda: seen.append(os.read(reading, 100))
    os.write(writing, b"printed")
    left.send(b"reply")
    assert right.receive() == b"reply"
    right.serve_watched()
    assert b"".join(seen) == b"printed"
    os.close(reading)
    os.close(writing)
