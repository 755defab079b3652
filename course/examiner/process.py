"""One life of a candidate's process: it is started, asked, watched, and ended."""

import os
import signal
import time
from collections.abc import Callable

import numpy as np

from .inside.channel import Channel, Closed
from .inside.codec import decode, encode
from .sandbox import GiB, Limits
from .zygote import Sandboxed, StartError, start

GRACE_SECONDS = 2.0  # between the request to stop and the kill
START_SECONDS = 60.0


class CandidateFailure(Exception):
    """The candidate's process did not answer as it should; the message is for the candidate."""


class Process:
    """One life of a candidate's process: requests and replies, deadlines, bounded output."""

    def __init__(self, files: dict[str, bytes], sandbox: str, limits: Limits, absent: tuple[str, ...]):
        self.limits = limits
        self.sandboxed: Sandboxed = start(sandbox, limits, absent)
        self.channel = Channel(self.sandboxed.connection, limits.reply_bytes)
        self.printed = {"stdout": bytearray(), "stderr": bytearray()}
        self.number = 0  # of the last request
        self.border = None  # proxies.Border: how objects cross, once it has started
        self.alive = True
        for name, descriptor in self.sandboxed.outputs.items():
            self.channel.watched[descriptor] = self._reader(descriptor, self.printed[name])
        deadline = time.monotonic() + START_SECONDS
        try:
            arrays = {name: np.frombuffer(data, np.uint8) for name, data in files.items()}  # they travel without copies
            self.channel.send(encode(arrays), deadline)
            self._reply(deadline)
        except (Closed, TimeoutError) as error:
            said = bytes(self.printed["stderr"][-2000:]).decode(errors="replace")
            self.kill()
            raise StartError(f"a candidate's process did not start: {said or error}") from None
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process's number, as it is here."""
        return self.sandboxed.process

    def request(self, operation: str, arguments: dict, deadline: float, limit: str) -> dict:
        """The reply to a request; CandidateFailure, naming the `limit`, if there is none by the deadline."""
        message = encode([self.number + 1, operation, arguments], self.border.give)
        self.number += 1
        for text in self.printed.values():
            text.clear()
        try:
            self.channel.send(message, deadline)
            reply = self._reply(deadline)
            self.channel.serve_watched()
            return reply
        except TimeoutError:
            self._interrupt()
            raise CandidateFailure(f"stopped: it ran longer than {limit}") from None
        except Closed:
            ending = self._ending()
            self.kill()
            raise CandidateFailure(f"the process ended ({ending})") from None
        except CandidateFailure:
            self.kill()
            raise
        except (ValueError, TypeError) as error:
            self.kill()
            raise CandidateFailure(f"the process sent what is no answer ({error})") from None

    def take_printed(self) -> dict[str, str]:
        """What was printed since the last request."""
        return {name: bytes(text).decode(errors="replace") for name, text in self.printed.items() if text}

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.channel.watched.clear()
            self.sandboxed.kill()

    def _reply(self, deadline: float) -> dict:
        while True:
            match decode(self.channel.receive(deadline), self.border and self.border.take):
                case [int(number), dict(reply)]:
                    if number == self.number:
                        return reply
                case _:
                    raise ValueError("a message that is no reply")

    def _interrupt(self) -> None:
        """Stop what runs; kill the process if it does not stop."""
        try:
            os.kill(self.pid, signal.SIGINT)
            self._reply(time.monotonic() + GRACE_SECONDS)
        except (OSError, Closed, ValueError, TypeError, CandidateFailure):  # TimeoutError is an OSError
            self.kill()

    def _reader(self, descriptor: int, text: bytearray) -> Callable[[], None]:
        def read():
            data = os.read(descriptor, 1 << 16)
            if not data:
                self.channel.watched.pop(descriptor, None)
            text.extend(data)
            if len(text) > self.limits.output_bytes:
                raise CandidateFailure(f"stopped: it printed more than {self.limits.output_bytes:,} bytes")

        return read

    def _ending(self) -> str:
        status = self.sandboxed.wait(GRACE_SECONDS)
        if status is None:
            return "it closed its connection"
        if self.sandboxed.group and self.sandboxed.group.ran_out_of_memory():
            return f"its processes used more than the limit of {self.limits.memory_bytes / GiB:.3g} GiB of memory"
        if -status in signal.valid_signals():
            return f"{signal.Signals(-status).name}: it crashed, was killed, or used more memory than it may"
        return f"exit status {status}"
