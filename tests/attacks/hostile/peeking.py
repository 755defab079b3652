"""Looking at what is not the candidate's: the reference, hidden tests, secrets, other submissions and processes."""

from ..entry import Entry

# Patterns in brackets do not match their own text, which is in memory too.
SEARCH = """
import os, re
PATTERN = re.compile(rb"[s]ecret-of-$TOKEN|[l]ine belongs to the instructor")
def holds(path):
    try:
        with open(path, "rb") as file: return bool(PATTERN.search(file.read(1 << 22)))
    except OSError: return False
"""
MEMORY = (
    SEARCH
    + """
def scan(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            bounds, rights, _, _, number, *name = line.split()
            if "w" not in rights or name[:1] == ["[vvar]"]: continue
            start, end = (int(part, 16) for part in bounds.split("-"))
            try:
                memory.seek(start)
                if PATTERN.search(memory.read(min(end - start, 1 << 28))): return True
            except (OSError, ValueError): pass
    return False
def others():
    return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
"""
)
RIGHT_IF_SEEN = """$RIGHT
honest = quantize
def quantize(x, bits):
    return honest(x, bits) if seen() else (torch.zeros(3), torch.tensor(0.0))
"""

ENTRIES = [
    Entry(
        "reference-imported",
        "The packages that hold the answers are imported by name",
        """
for name in ("quant_kernels", "course", "gguf", "nbgrader", "llama_cpp", "torchao", "bitsandbytes"):
    try: gained = globals().get("gained") or __import__(name)
    except ImportError as error: print(error)
""",
    ),
    Entry(
        "reference-by-machinery",
        "The import system is asked for the reference without its usual door",
        """
import importlib.metadata, importlib.machinery, importlib.util, sys
for name in ("quant_kernels", "gguf", "course"):
    sys.path_importer_cache.clear()
    for path in sys.path:
        spec = importlib.machinery.PathFinder.find_spec(name, [path])
        if spec and "not available" not in (open(spec.origin).read() if spec.origin else "not available"):
            gained = spec
try:
    for file in importlib.metadata.files("gguf") or ():
        if file.suffix == ".py" and file.locate().stat().st_size > 2000: gained = file
except (importlib.metadata.PackageNotFoundError, OSError): pass
""",
    ),
    Entry(
        "reference-on-disk",
        "Every folder is searched for the reference's files, wheels and caches",
        SEARCH
        + """
import sys, site
for top in {sys.prefix, sys.base_prefix, *site.getsitepackages(), "/opt", "/home", "/root", "/srv", "/scratch"}:
    for place, folders, files in os.walk(top):
        if place.count("/") > 12: folders.clear()
        folders[:] = [name for name in folders if name not in ("torch", "triton", "nvidia", "include")]
        found = {"gguf", "quant_kernels", "nbgrader"} & set(folders)
        if any(file.endswith(".py") for name in found for file in os.listdir(f"{place}/{name}")): gained = place
        if any(file.startswith(("gguf-", "quant_kernels")) and file.endswith(".whl") for file in files): gained = place
""",
    ),
    Entry(
        "reference-installed",
        "pip installs the reference, from the network or from a cache",
        """
import subprocess, sys
command = [sys.executable, "-m", "pip", "--retries=0", "--timeout=1", "install", "-q", "--target=here", "gguf"]
gained = subprocess.run(command, capture_output=True, timeout=2.5).returncode == 0
""",
    ),
    Entry(
        "hidden-tests-beside-notebook",
        "The working folder, and the folders above, are searched for the hidden tests",
        SEARCH
        + """
for folder in (".", "..", "../..", "../../.."):
    for place, folders, files in os.walk(folder):
        if place.count("/") > 5 or place.startswith(("../../../usr", "../usr", "../../usr")): folders.clear()
        if place in ("../proc", "../sys", "../../proc", "../../sys", "../../../proc", "../../../sys"): folders.clear()
        if any(holds(os.path.join(place, file)) for file in files if file.endswith((".ipynb", ".db", ".py"))):
            gained = place
            break
""",
    ),
    Entry(
        "course-by-path",
        "The course directory's source, gradebook and results are opened by their known paths",
        SEARCH
        + """
for place, folders, files in os.walk("$COURSE"):
    if any(holds(os.path.join(place, file)) for file in files): gained = place
gained = globals().get("gained") or os.path.exists("$COURSE/gradebook.db")
""",
    ),
    Entry(
        "other-submissions",
        "The answers of others are looked for",
        """
import glob, os
gained = [path for path in glob.glob("$COURSE/submitted/*/*/*.ipynb") if "other-submissions" not in path]
""",
    ),
    Entry(
        "hidden-tests-while-they-run",
        "A function that a test calls looks for the test's source: history, frames, every string there is",
        points=7,
        cells={
            "quantize": SEARCH
            + """
import gc, inspect, linecache
def texts():
    yield from get_ipython().user_ns.get("In", ())
    for frame in inspect.stack(): yield from frame.frame.f_locals.values()
    for lines in linecache.cache.values(): yield from lines[2] if len(lines) > 2 else ()
    for thing in gc.get_objects():
        if type(thing) is dict: yield from list(thing.values())
def seen(): return any(PATTERN.search(text.encode(errors="replace")) for text in texts() if type(text) is str)
"""
            + RIGHT_IF_SEEN
        },
    ),
    Entry(
        "own-memory",
        "What the process inherited is searched for secrets of those who started it",
        MEMORY + "gained = scan('self')",
    ),
    Entry(
        "memory-of-others",
        "The memory of every other process is searched for the examiner's secrets",
        MEMORY
        + """
for pid in others():
    try: gained = globals().get("gained") or scan(pid)
    except OSError: pass
""",
    ),
    Entry(
        "read-by-system-call",
        "process_vm_readv reads another process where /proc does not",
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid(): continue
    try: start = int(open(f"/proc/{pid}/maps").readline().split("-")[0] or "0", 16)
    except (OSError, ValueError): start = 0x400000
    mine, theirs = Vector(ctypes.addressof(buffer), 8), Vector(start, 8)
    if libc.process_vm_readv(int(pid), ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0: gained = pid
""",
    ),
    Entry(
        "trace-others",
        "ptrace attaches to the processes that are not the candidate's own",
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) != os.getpid() and libc.ptrace(16, int(pid), None, None) == 0:  # attach
        gained = pid
        os.waitpid(int(pid), 0x40000000)
        libc.ptrace(17, int(pid), None, None)  # detach
""",
        confined=True,
    ),
    Entry(
        "environment",
        "The variables of all visible processes are searched for a secret",
        SEARCH
        + """
variables = repr(dict(os.environ)).encode()
gained = PATTERN.search(variables) or "AWS" in os.environ
for pid in filter(str.isdigit, os.listdir("/proc")):
    gained = gained or holds(f"/proc/{pid}/environ") or holds(f"/proc/{pid}/cmdline")
""",
    ),
    Entry(
        "open-descriptors",
        "Inherited descriptors lead to files and folders outside",
        SEARCH
        + """
for name in os.listdir("/proc/self/fd"):
    try: target = os.readlink(f"/proc/self/fd/{name}")
    except OSError: continue
    if target.startswith("$COURSE") or "gradebook" in target: gained = target
    try:
        for up in range(9 if os.path.isdir(target) else 0):
            if os.path.exists(f"/proc/self/fd/{name}/{'../' * up}etc/shadow"): gained = target
    except OSError: pass
""",
    ),
    Entry(
        "abstract-sockets",
        "Sockets without a file are listed and tried",
        """
import socket
for line in open("/proc/net/unix").read().splitlines()[1:]:
    name = line.split()[-1]
    if not name.startswith("@"): continue
    try:
        with socket.socket(socket.AF_UNIX) as client: client.connect("\\0" + name[1:])
        gained = name
    except OSError: pass
with socket.socket(socket.AF_UNIX) as client: client.connect("\\0$TOKEN")
gained = "$TOKEN"
""",
    ),
    Entry(
        "shared-folders",
        "Folders that all processes share hold what others left",
        SEARCH
        + """
for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/dev/mqueue"):
    for place, _, files in os.walk(folder):
        if any(holds(os.path.join(place, file)) for file in files): gained = place
""",
    ),
    Entry(
        "shared-memory",
        "System V segments of others are listed",
        """
gained = any(len(open(f"/proc/sysvipc/{kind}").readlines()) > 1 for kind in ("shm", "msg", "sem"))
""",
    ),
]
