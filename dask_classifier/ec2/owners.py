"""The tag that identifies the process that started a cluster; whether that process still runs, or left something."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from .teardown import Group, Instance

_PROC, _MACHINE_ID = Path("/proc"), Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOTS = Path("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())  # survives a reboot
_KEEP_SECONDS = 90 * 86_400.0  # no deadline is longer
_FIELDS = 4  # in a tag; earlier versions wrote three, with a time that depends on the clock


def this_client() -> str:
    """Return a tag that identifies this process: host name, process id, the scope of that id, and start time.

    The host name is for people. `alive` compares the rest: hashes of the machine id and the boot id, the PID and time
    namespaces, and the process's start time in clock ticks since boot. None of them changes if the clock is set, the
    computer sleeps, or the host is renamed.
    """
    machine, boot = _machine(), _boot()
    _remember(boot)
    scope = "/".join(part or "-" for part in (machine, boot, _namespaces()))
    return f"{_host()} {os.getpid()} {scope} {_start(os.getpid()) or '-'}"


def process_and_host(tag: str) -> tuple[str, str]:
    """Return the process id and the host name of a tag, to show to people."""
    host, pid, *_ = [*tag.split(), "", ""]
    return pid, host.partition("/")[0]


def alive(tag: str) -> bool | None:
    """Return whether the process that wrote the tag still runs. None if this process cannot be sure."""
    fields = tag.split()
    if len(fields) != _FIELDS or fields[2].count("/") != 2 or not fields[1].isdigit():
        return None
    host, pid, scope, began = fields
    machine, boot, namespaces = scope.split("/")
    if not boot or boot == "-":
        return None
    if boot != _boot():
        same_host = host == _host()  # a copy of this computer's disk also has the marks of its boots
        return False if same_host and _rebooted_since(machine, boot) else None
    if namespaces != _namespaces() or began == "-":
        return None  # another container, with process ids of its own
    return _same_process(int(pid), began)


def is_leaked(resource: "Instance | Group") -> bool | None:
    """Return whether the resource is past its deadline, or the command that started it no longer runs.

    None if this computer cannot tell. A named cluster, and that of a detached run, outlive their command, until their
    deadline.
    """
    if resource.deadline and time.time() > resource.deadline:
        return True
    return False if resource.name or resource.detached else is_orphaned(resource)


def is_orphaned(resource: "Instance | Group") -> bool | None:
    """Return whether the command that started the resource no longer runs; None if this computer cannot tell."""
    running = alive(resource.client)
    return None if running is None else not running


def _host() -> str:
    return socket.gethostname()[:80]


def _same_process(pid: int, began: str) -> bool | None:
    """Return whether the process with this id is the one that started at `began`."""
    if start := _start(pid):
        if start == began:
            return not _is_zombie(pid)
        return False if sys.platform == "linux" else None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it belongs to another user, and /proc hides it (hidepid)
    return None


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain spaces; [] if they cannot be read."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _start(pid: int) -> str:
    """Return when a process started, independent of clock changes; "" if it cannot be read."""
    if sys.platform == "linux":
        if str((_PROC / "self").readlink()) != str(os.getpid()):
            return ""  # /proc belongs to another PID namespace
        return fields[19] if len(fields := _stat(pid)) > 19 else ""
    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.0f}"
    return ""


def _is_zombie(pid: int) -> bool:
    """Return whether it has exited, and its parent has not collected its exit status yet."""
    fields = _stat(pid)
    return len(fields) > 19 and fields[0] in "ZX" and int(fields[17]) <= 1  # state, number of threads


# --- this computer and its boots -------------------------------------------------------------------


def _digest(text: str) -> str:
    """Hash an id of this computer: everybody in the account can read the tags."""
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
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return _digest(
                subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
            )
    return ""


def _namespaces() -> str:
    """Return the PID and time namespaces; "-" if the system has none, as on macOS."""
    names = []
    for kind in ("pid", "time"):
        with contextlib.suppress(OSError):
            names.append(str((_PROC / "self" / "ns" / kind).readlink()).partition("[")[2].rstrip("]"))
    return ".".join(names) or "-"


def _rebooted_since(machine: str, boot: str) -> bool:
    """Return whether this computer was booted with that id before, and has rebooted since.

    Copies of a virtual machine, and containers of one image, may share a machine id. Therefore the boot must also
    have left its mark on this computer's own disk.
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
    """Return whether no other user can have created the folder or written to it."""
    status = folder.lstat()
    return folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _remember(boot: str) -> None:
    """Leave a mark by which this boot can be recognized after a reboot."""
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
