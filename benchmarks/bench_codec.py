"""What a candidate's process is told and tells back: a large tensor, and many small calls, beside the usual ways.

    python benchmarks/bench_codec.py [--megabytes 64] [--calls 1000] [--rounds 5]

Each way has a process of its own that sends back what it receives. All of them take turns in a round, and the best of
the rounds counts. A ratio is how many times our time a peer takes; one below its aim is followed by the aim. pickle
is no choice for what a candidate sends, because reading it runs code of the sender's: it stands here as what is fast.
"""

import argparse
import base64
import contextlib
import json
import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from course.examiner.inside.channel import Channel
from course.examiner.inside.codec import decode, encode

LIMIT = 8 << 30  # bytes of a message
AIMS = {"pickle 5 over a pipe": (1, 0.3), "base64 in JSON": (10, 0.3)}  # for the tensor, and for small calls

Exchange = Callable[[object], object]


class Ours:
    """Messages with buffers over a socket, as the examiner sends them."""

    def __init__(self, end: socket.socket):
        self.channel = Channel(end, LIMIT)

    def send(self, value: object) -> None:
        self.channel.send(encode(value))

    def receive(self) -> object:
        return decode(self.channel.receive())


class Pickle:
    """pickle, protocol 5, over a multiprocessing.Pipe; a tensor goes as its array, for torch would share its memory."""

    def __init__(self, end):
        self.end = end

    def send(self, value: object) -> None:
        value = value.numpy() if isinstance(value, torch.Tensor) else value
        self.end.send_bytes(pickle.dumps(value, protocol=5))

    def receive(self) -> object:
        value = pickle.loads(self.end.recv_bytes(LIMIT))
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class Json:
    """JSON over a multiprocessing.Pipe, with the bytes of tensors in base64."""

    def __init__(self, end):
        self.end = end

    def send(self, value: object) -> None:
        if isinstance(value, torch.Tensor):
            data = base64.b64encode(value.numpy().tobytes()).decode()
            value = {"dtype": "float32", "shape": list(value.shape), "data": data}
        self.end.send_bytes(json.dumps(value).encode())

    def receive(self) -> object:
        value = json.loads(self.end.recv_bytes(LIMIT))
        if isinstance(value, dict):
            array = np.frombuffer(bytearray(base64.b64decode(value["data"])), value["dtype"])
            return torch.from_numpy(array).reshape(value["shape"])
        return value


WAYS = {
    "the examiner's messages": (Ours, socket.socketpair),
    "pickle 5 over a pipe": (Pickle, multiprocessing.Pipe),
    "base64 in JSON": (Json, multiprocessing.Pipe),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--megabytes", type=int, default=64, help="of the float32 tensor (64)")
    parser.add_argument("--calls", type=int, default=1000, help="small calls (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (5)")
    args = parser.parse_args()
    tensor = torch.rand(args.megabytes, 1 << 18)
    exchanges = {name: start(*way) for name, way in WAYS.items()}
    for exchange in exchanges.values():
        assert torch.equal(exchange(tensor[:2]), tensor[:2])
    large = best(exchanges, args.rounds, lambda exchange: exchange(tensor))
    small = best(exchanges, args.rounds, lambda exchange: call(exchange, args.calls))
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table(large, small, f"{args.megabytes} MiB tensor", f"{args.calls:,} small calls"))
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")


def start(kind: type, make_ends: Callable) -> Exchange:
    """Start a process that sends everything back; returns a function that sends a value there and receives it."""
    ours, theirs = make_ends()
    multiprocessing.get_context("fork").Process(target=echo, args=(kind, ours, theirs), daemon=True).start()
    theirs.close()
    end = kind(ours)

    def exchange(value: object) -> object:
        end.send(value)
        return end.receive()

    return exchange


def echo(kind: type, ours, theirs) -> None:
    ours.close()
    end = kind(theirs)
    with contextlib.suppress(EOFError):
        while True:
            end.send(end.receive())


def call(exchange: Exchange, calls: int) -> None:
    for number in range(calls):
        exchange([number, "call", [7, 2.5, "blk.0.attn_q.weight", [1, 2, 3]]])


def best(exchanges: dict[str, Exchange], rounds: int, job: Callable[[Exchange], object]) -> dict[str, float]:
    """Seconds of each way's best round."""
    seconds = dict.fromkeys(exchanges, float("inf"))
    for _ in range(rounds):
        for name, exchange in exchanges.items():
            began = time.perf_counter()
            job(exchange)
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def table(large: dict[str, float], small: dict[str, float], *titles: str) -> Table:
    result = Table("there and back", *(f"{title}, ms" for title in titles), title="ms, and times ours")
    ours = next(iter(large))
    for name in large:
        cells = []
        for place, seconds in enumerate((large, small)):
            ratio = seconds[name] / seconds[ours]
            aim = AIMS.get(name, (0, 0))[place]
            missed = f" (aim {aim})" if ratio < aim else ""
            cells.append(f"{seconds[name] * 1e3:.1f}" + (f"   {ratio:.2f}x{missed}" if name in AIMS else ""))
        result.add_row(name, *cells)
    return result


if __name__ == "__main__":
    main()
