"""Which process started a cluster, and whether that process still runs: the tag that says so, and reading it."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

_PROC, _MACHINE_ID = Path("/proc"), Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOTS = Path("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())  # survives a reboot
_KEEP_SECONDS = 90 * 86_400.0  # no deadline is longer
_WORDS = 4  # of a tag; older versions wrote three, with a time that a clock can move


def this_client() -> str:
    """Name this process, as a tag: host, process id, where that id is valid, and when the process began.

    The host's name is for people. `alive` compares the rest: digests of the machine's id and of the boot's, the
    namespaces of processes and of time, and the process's start in clock ticks since the boot. Setting the clock,
    sleep, and a new host name change none of them.
    """
    machine, boot = _machine(), _boot()
    _remember(boot)
    place = "/".join(each or "-" for each in (machine, boot, _namespaces()))
    return f"{_host()} {os.getpid()} {place} {_start(os.getpid()) or '-'}"


def process_and_host(tag: str) -> tuple[str, str]:
    """For people: the process id and the host's name."""
    host, pid, *_ = [*tag.split(), "", ""]
    return pid, host.partition("/")[0]


def alive(tag: str) -> bool | None:
    """Whether the process that wrote the tag runs. None where this process cannot be sure."""
    words = tag.split()
    if len(words) != _WORDS or words[2].count("/") != 2 or not words[1].isdigit():
        return None
    host, pid, place, began = words
    machine, boot, namespaces = place.split("/")
    if not boot or boot == "-":
        return None
    if boot != _boot():
        same_host = host == _host()  # a copy of this machine's disk has its marks, too
        return False if same_host and _rebooted_since(machine, boot) else None
    if namespaces != _namespaces() or began == "-":
        return None  # another container: its process ids are not ours
    return _same_process(int(pid), began)


def _host() -> str:
    return socket.gethostname()[:80]


def _same_process(pid: int, began: str) -> bool | None:
    """Whether the process of this id is the one that began then."""
    if start := _start(pid):
        if start == began:
            return not _is_zombie(pid)
        return False if sys.platform == "linux" else None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # there is one, of another user, whom /proc hides (hidepid)
    return None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold spaces; [] where they are not to be seen."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _start(pid: int) -> str:
    """When a process began, in a form that no clock moves; "" where it cannot be seen."""
    if sys.platform == "linux":
        if str((_PROC / "self").readlink()) != str(os.getpid()):
            return ""  # /proc of another namespace of processes
        return found[19] if len(found := _stat(pid)) > 19 else ""
    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.0f}"
    return ""


def _is_zombie(pid: int) -> bool:
    """Whether it has died, and only its parent does not know yet."""
    found = _stat(pid)
    return len(found) > 19 and found[0] in "ZX" and int(found[17]) <= 1


# --- the machine and its boots ---------------------------------------------------------------------


def _digest(text: str) -> str:
    """Of an id that is this machine's own business: tags can be read by everybody in the account."""
    return hashlib.sha256(f"dask-classify {text}".encode()).hexdigest()[:16] if text else ""


def _machine() -> str:
    with contextlib.suppress(OSError):
        return _digest(_MACHINE_ID.read_text().strip())
    return ""


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _digest(_BOOT_ID.read_text().strip())
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return _digest(subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip())
    return ""


def _namespaces() -> str:
    """Those of process ids and of time; "" where there is no such thing, as on macOS."""
    names = []
    for kind in ("pid", "time"):
        with contextlib.suppress(OSError):
            names.append(str((_PROC / "self" / "ns" / kind).readlink()).partition("[")[2].rstrip("]"))
    return ".".join(names) or "-"


def _rebooted_since(machine: str, boot: str) -> bool:
    """Whether that boot was this machine's, and is over.

    Copies of a virtual machine, and containers of one image, may share the machine's id. So the boot must also
    have left its mark on this machine's own disk.
    """
    if not machine or machine != _machine() or not _boot():
        return False
    with contextlib.suppress(OSError):
        return _is_mine(_marks()) and _mark(boot).is_file()
    return False


def _marks() -> Path:
    return _BOOTS / f"dask-classify-boots-{os.getuid()}"


def _mark(boot: str) -> Path:
    return _marks() / boot


def _is_mine(folder: Path) -> bool:
    """Whether nobody else can have made or filled it."""
    status = folder.lstat()
    return folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _remember(boot: str) -> None:
    """Leave the mark by which a later boot knows this one. Without it, only the deadline tells."""
    if not boot:
        return
    with contextlib.suppress(OSError):
        _marks().mkdir(mode=0o700, exist_ok=True)
        if not _is_mine(_marks()):
            return
        for old in _marks().iterdir():
            if time.time() - old.stat().st_mtime > _KEEP_SECONDS:
                old.unlink(missing_ok=True)
        _mark(boot).touch()
