"""System calls that no candidate's process needs, and that have let processes out of sandboxes before.

The other walls hold without this filter: it takes away what stands behind them. It is classic BPF, as seccomp(2) and
Linux's <linux/seccomp.h> and <linux/audit.h> describe it. Other processors than those in `ARCHITECTURES` have none.
"""

import ctypes
import errno
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, GREATER_OR_EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|..|K, BPF_RET|K
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data (little endian)
X32 = 0x40000000  # bit of the numbers of x86-64's second table of calls
NEW_NAMESPACES = 0x7E020080  # clone(2): CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
FAMILIES = (1, 2, 10, 16)  # sockets: unix, IPv4, IPv6, netlink; others (vsock!) may not know network namespaces

# name -> numbers on x86-64 and ARM64
DENIED = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_adjtime": (305, 266),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447), "migrate_pages": (256, 238), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142),
    "request_key": (249, 218), "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268),
    "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282),
}  # fmt: skip
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_...


def program(machine: str) -> bytes:
    """The filter for a processor, as an array of struct sock_filter.

    >>> len(program("x86_64")) // 8
    120
    """
    column, architecture = ARCHITECTURES[machine]
    denied = b"".join(_refuse(numbers[column], errno.EPERM) for numbers in DENIED.values())
    return b"".join(
        [
            _step(LOAD, ARCHITECTURE) + _step(EQUAL, architecture, 1, 0) + _step(RETURN, KILL),
            _step(LOAD, NUMBER) + _step(GREATER_OR_EQUAL, X32, 0, 1) + _step(RETURN, ERROR | errno.ENOSYS),
            denied,
            _refuse(CLONE3[column], errno.ENOSYS),  # its flags lie in memory, out of sight; libraries then use clone
            _step(EQUAL, CLONE[column], 0, 3) + _step(LOAD, FIRST_ARGUMENT),
            _step(ANY_BIT, NEW_NAMESPACES, 0, 1 + len(FAMILIES) + 3) + _step(RETURN, ERROR | errno.EPERM),
            _step(EQUAL, SOCKET[column], 0, 1 + len(FAMILIES) + 1) + _step(LOAD, FIRST_ARGUMENT),
            *(_step(EQUAL, family, len(FAMILIES) - place, 0) for place, family in enumerate(FAMILIES)),
            _step(RETURN, ERROR | errno.EAFNOSUPPORT),
            _step(RETURN, ALLOW),
        ]
    )


def install() -> None:
    """Filter the system calls of this process and of all that it starts; cannot be undone."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return
    code = program(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")


def _refuse(number: int, error: int) -> bytes:
    return _step(EQUAL, number, 0, 1) + _step(RETURN, ERROR | error)


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; a jump skips `then` instructions where it holds, `otherwise` ones where it does not."""
    return struct.pack("HBBI", code, then, otherwise, value)
