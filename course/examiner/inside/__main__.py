"""The candidate's process.

It stands alone in its folder: nothing else of the course is needed, or can be seen, in the sandbox.
"""

import json
import os
import resource
import socket
import sys
import warnings
from pathlib import Path

import msgpack

from .channel import Channel
from .kernel import Kernel


def limit_resources(limits: dict) -> None:
    """Set this process's limits for good: without privileges a hard limit cannot be raised again."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def main() -> None:
    setup = json.loads(sys.argv[1])
    channel = Channel(socket.socket(fileno=setup["descriptor"]), setup["reply_bytes"])
    files = msgpack.unpackb(channel.receive())
    for name, data in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    limit_resources(setup["rlimits"])
    sys.path.insert(0, os.getcwd())
    warnings.filterwarnings("ignore", message=".*HistoryManager.*")
    kernel = Kernel(channel)
    channel.send(msgpack.packb([0, {}]))
    kernel.serve()


if __name__ == "__main__":
    main()
