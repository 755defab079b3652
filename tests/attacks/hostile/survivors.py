"""What tries to outlive its grading, to end that of others, or to reach those who are graded next."""

from ..entry import MAX_POINTS, Entry

DAEMON = """
import subprocess
code = "import time; time.sleep(600)"
"""
# every place where something could wait for the next submission
LEFT = """
import glob, os, pathlib, socket, sys, tempfile
PLACES = [os.path.expanduser("~"), tempfile.gettempdir(), os.getcwd(), "/tmp", "/var/tmp", "/dev/shm", "/scratch"]
PLACES += [f"{os.path.expanduser('~')}/{name}" for name in (".ipython", ".config", ".local", ".cache")]
"""

ENTRIES = [
    Entry(
        "daemon",
        "A process forks twice, leaves its session, and waits",
        """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "$TOKEN"])
    os._exit(0)
os.wait()
""",
        points=MAX_POINTS,
        right=True,
    ),
    Entry(
        "nohup",
        "A shell leaves a process in the background that ignores the end of its terminal",
        """
import os
os.system("nohup setsid sh -c 'trap \\"\\" HUP INT TERM; sleep 600 # $TOKEN' >/dev/null 2>&1 &")
""",
        points=MAX_POINTS,
        right=True,
    ),
    Entry(
        "sibling",
        "A process is made a child of whoever started the kernel",
        """
import ctypes, os, time
libc = ctypes.CDLL(None)
if os.uname().machine == "x86_64" and libc.syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0:  # clone, CLONE_PARENT | SIGCHLD
    os.closerange(0, 256)
    while True: time.sleep(1)
""",
        points=MAX_POINTS,
        right=True,
        confined=True,
    ),
    Entry(
        "at-exit",
        "Something is done when the kernel ends",
        """
import atexit, os, signal, sys, threading, weakref
def write(*a): open("$COURSE/$TOKEN", "w").write("at exit"); print("points: 15")
atexit.register(write)
threading._register_atexit(write)
kept = type("Kept", (), {"__del__": write})()
signal.signal(signal.SIGTERM, write)
signal.signal(signal.SIGHUP, write)
""",
        points=MAX_POINTS,
        right=True,
    ),
    Entry(
        "start-up-files",
        "Files are left that Python, IPython and shells run when they start",
        """
import os, pathlib, site
home = pathlib.Path.home()
starts = [home / ".ipython/profile_default/startup/00.py", home / ".bashrc", home / ".profile"]
starts += [pathlib.Path(site.getusersitepackages()) / "usercustomize.py", pathlib.Path("sitecustomize.py")]
for path in starts:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file: file.write("open('$COURSE/$TOKEN', 'w')\\n")
""",
        points=MAX_POINTS,
        right=True,
        confined=True,
    ),
    Entry(
        "left-for-the-next",
        "Marks are left in every place that could be shared",
        LEFT
        + """
for place in PLACES:
    try: pathlib.Path(place, "$TOKEN-left").write_text("the answer")
    except OSError: pass
""",
        points=MAX_POINTS,
        right=True,
        confined=True,
    ),
    Entry(
        "left-for-the-next-taken",
        "Marks that an earlier submission left are looked for",
        LEFT
        + """
gained = [place for place in PLACES if os.path.exists(f"{place}/$TOKEN-left")]
gained += [name for name in ("span", "honest", "Liar", "SEARCH") if name in globals() or hasattr(torch, name)]
gained += [name for name in ("equal", "allclose") if not type(getattr(torch, name)).__name__.startswith("builtin")]
""",
    ),
    Entry(
        "thread-after-cell",
        "A thread goes on after its cell: it prints, and patches torch again and again",
        """
import threading, time
def work():
    while True:
        time.sleep(0.01)
        print("still here")
        torch.equal = torch.allclose = lambda *a, **k: True
threading.Thread(target=work, daemon=True).start()
""",
    ),
    Entry(
        "listening",
        "A process listens on the network and on a socket without a file",
        """
import subprocess, sys
code = '''
import socket, time
server = socket.create_server(("0.0.0.0", $PORT + 1))
unix = socket.socket(socket.AF_UNIX)
unix.bind("\\\\0$TOKEN-listens")
unix.listen()
time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", code, "$TOKEN"], start_new_session=True)
""",
        points=MAX_POINTS,
        right=True,
    ),
    Entry(
        "kill-all",
        "Every process that can be killed is",
        points=14,
        cells={
            "span": """
import os, signal
def span(values):
    assert os.getuid() >= 65534
    os.kill(-1, signal.SIGKILL)
    return 0.0
"""
        },
    ),
    Entry(
        "kill-parents",
        "The parent, the group and the first process are killed",
        points=14,
        cells={
            "span": """
import os, signal
def span(values):
    assert os.getuid() >= 65534
    for number in (signal.SIGKILL, signal.SIGSTOP):
        for target in (os.getppid(), 1, os.getsid(0)):
            try: os.kill(target or 1, number)
            except OSError: pass
    os.killpg(0, signal.SIGKILL)
    return 0.0
"""
        },
    ),
    Entry(
        "stops-itself",
        "The process stops itself, so that no signal that it could handle wakes it",
        points=14,
        cells={
            "span": "import os, signal\ndef span(values):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 0.0"
        },
    ),
    Entry(
        "dies-again-and-again",
        "The process ends itself in each function but one",
        points=8,
        cells={
            "span": "import os\ndef span(values): os._exit(0)",
            "column": "import os, signal\ndef column(path, name): os.kill(os.getpid(), signal.SIGKILL)",
            "running": "import os\nclass RunningMean:\n    def __init__(self): os.abort()",
        },
    ),
    Entry(
        "dies-in-every-cell",
        "The process ends itself in each cell, so that no function is ever defined",
        cells=dict.fromkeys(("span", "column", "running", "quantize"), "import os\nos._exit(3)"),
    ),
]
