"""One command at a time on a run: a lock in its folder.

On a local disk it is an flock, which ends with its process. In S3 it is a lease: an object that is written only if
there is none (If-None-Match), renewed while the run goes on, and taken over, by its ETag (If-Match), when it was not
renewed for a while. manifest.json is written conditionally, too, so that of two commands, only one can complete a run.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from .. import s3, storage
from ..errors import RunInUse, StorageError
from ..parts.run_folder import LOCK, MANIFEST, RunFolder

RENEW_SECONDS, STALE_SECONDS = 20.0, 90.0  # of a lease
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # which goes on while a computer sleeps
_TRIES, _PROBE_SECONDS = 3, 0.01  # to lock a file, and how long `is_held` may hold it
_FREE = b"{}"  # a lease that was given back
_TAKEN = "Its finished blocks are kept. Wait for the other command."


class Lock(Protocol):
    """The right to write to a run's folder."""

    def check(self) -> None:
        """Raise StorageError if the lock was lost."""
        ...

    def publish(self, name: str, data: bytes) -> None:
        """Write the file that completes a run. Raise StorageError if another command has done so."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


_held: ContextVar[tuple[tuple[str, Lock], ...]] = ContextVar("held", default=())


@contextlib.contextmanager
def held(folder: RunFolder) -> Iterator[Lock]:
    """Lock a run's folder for the `with` block; within one that has the lock already, nothing more is done.

    Raise RunInUse if another command has it, StorageError if the store cannot be reached.
    """
    me = _me(folder)
    if lock := dict(_held.get()).get(me):
        yield lock
        return
    lock = _acquired(folder)
    before = _held.set((*_held.get(), (me, lock)))
    try:
        yield lock
    finally:
        _held.reset(before)
        lock.release()


def refuse_if_held(folder: RunFolder) -> None:
    """Raise RunInUse if another command is at work in a folder."""
    if _me(folder) not in dict(_held.get()) and is_held(folder):
        raise _in_use(folder, holder(folder))


def _me(folder: RunFolder) -> str:
    return f"{os.getpid()} {folder.url}"  # a process that was forked has not got the lock


def _acquired(folder: RunFolder) -> Lock:
    if s3.is_s3(folder.url):
        return Lease(folder)
    return FileLock(folder) if storage.is_local(folder.url) else NoLock(folder)


def _holder() -> dict[str, object]:
    """Return who holds a lock, for people and for the holder itself."""
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "token": secrets.token_hex(8),
    }


def _in_use(folder: RunFolder, text: bytes) -> RunInUse:
    try:
        holder = json.loads(text)
        who = f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, but has not written yet who it is
        who = "another command"
    hint = "Wait for it, or choose another --output."
    if s3.is_s3(folder.url):
        hint += f" If it was killed, wait {STALE_SECONDS:.0f} s."
    return RunInUse(f"{folder} is in use by {who}.", hint)


def is_held(folder: RunFolder) -> bool:
    """Return whether a command is at work in a folder, without disturbing it."""
    if s3.is_s3(folder.url):
        there = s3.version_and_age(folder.path(LOCK))
        return there is not None and there[1] < STALE_SECONDS and holder(folder) not in {b"", _FREE}
    try:
        with Path(folder.path(LOCK)).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def holder(folder: RunFolder) -> bytes:
    """Return who has the lock of a folder; b"" if nobody has."""
    try:
        return folder.read(LOCK)
    except StorageError:
        return b""


def forget(folder: RunFolder, holder: bytes) -> None:
    """Delete the lease of a holder that is known to have terminated, unless another command has it now."""
    there = s3.version_and_age(folder.path(LOCK))
    token = _token(holder)
    if there and token and token == _token(folder.read(LOCK)):
        _free(folder, there[0])


def _token(content: bytes) -> str | None:
    """Return what tells one holder of a lease from all others."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return json.loads(content)["token"]
    return None


def _free(folder: RunFolder, version: str) -> None:
    """Delete a lease of this version; without the right to delete, mark it as free."""
    try:
        s3.delete_if(folder.path(LOCK), version)
    except StorageError:
        s3.write_if(folder.path(LOCK), _FREE, version)


class NoLock:
    """Where there is no way to lock."""

    def __init__(self, folder: RunFolder):
        self.folder = folder

    def check(self) -> None:
        """Do nothing."""

    def publish(self, name: str, data: bytes) -> None:
        """Write the file."""
        self.folder.write(name, data)

    def release(self) -> None:
        """Do nothing."""


class FileLock(NoLock):
    """An flock on a file in a local folder, which is deleted with the lock."""

    def __init__(self, folder: RunFolder):
        super().__init__(folder)
        self.path = Path(folder.path(LOCK))
        self._made = storage.missing_folders(self.path.parent)
        self._file = self._locked()

    def _locked(self) -> int | None:
        text = None
        for _ in range(_TRIES):
            try:
                file = self._opened()
            except FileNotFoundError:
                continue  # its holder has just deleted the folder
            except OSError:
                return None  # no right to write here: the run itself will say so
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.read(file, 1000)
                os.close(file)
                time.sleep(_PROBE_SECONDS)  # perhaps it was only looked at
            except OSError:
                os.close(file)
                return None  # a file system without locks
            else:
                if self._is_there(file):
                    self._say_who(file)
                    return file
                os.close(file)  # its holder has just deleted it
                text = b""
        if text is None:
            return None  # there can be no such folder: the run itself will say so
        raise _in_use(self.folder, text)

    def _opened(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:  # another user's: an flock needs no right to write
            return os.open(self.path, os.O_RDONLY)

    @staticmethod
    def _say_who(file: int) -> None:
        with contextlib.suppress(OSError):  # a full disk, or another user's file: it is locked all the same
            os.ftruncate(file, 0)
            os.write(file, json.dumps(_holder()).encode())

    def _is_there(self, file: int) -> bool:
        """Return whether the locked file still has its name."""
        with contextlib.suppress(FileNotFoundError):
            return os.fstat(file).st_ino == self.path.stat().st_ino
        return False

    def release(self) -> None:
        """Delete the file, and folders that were made for it and are empty."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self._is_there(self._file):
                self.path.unlink()
            for path in self._made:
                path.rmdir()
        os.close(self._file)


class Lease(NoLock):
    """An object in S3 that is renewed by a thread."""

    def __init__(self, folder: RunFolder):
        super().__init__(folder)
        self.url, self._holder, self._writes = folder.path(LOCK), _holder(), 0
        self._guard = threading.Lock()  # of the version and the time
        self._renewed = time.clock_gettime(_CLOCK)  # before the request: S3 counts from some moment in it
        self._version = self._acquire()
        self._before = self._version_of_manifest()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, daemon=True)
        self._thread.start()

    def _version_of_manifest(self) -> tuple[str, float] | None:
        """Return it with its age, or None. Give the lease back if that cannot be found out."""
        try:
            return s3.version_and_age(self.folder.path(MANIFEST))
        except StorageError:
            with contextlib.suppress(StorageError):
                _free(self.folder, self._version)
            raise

    def _acquire(self) -> str:
        for _ in range(3):
            there = s3.version_and_age(self.url)
            if there and there[1] < STALE_SECONDS and self._is_others(self._content()):
                raise _in_use(self.folder, self._content())
            if version := self._written(there and there[0]):
                return version
        raise _in_use(self.folder, self._content())

    def _written(self, version: str | None) -> str | None:
        """Write the lease if its version is this one; return the new version, or None.

        Each time it is another text, and so another ETag: whoever is about to take the lease over notices a renewal.
        """
        self._writes += 1
        new = s3.write_if(self.url, json.dumps(self._holder | {"writes": self._writes}).encode(), version)
        if new is not None:
            return new
        there = s3.version_and_age(self.url)
        # a request whose answer was lost has been repeated; what cannot be read is not another command's
        return there[0] if there and self._is_mine(self._read()) else None

    def _read(self) -> bytes:
        """Return who has the lease; b"" if it was given back in this moment. Raises StorageError."""
        try:
            return storage.read(self.url)
        except StorageError:
            if s3.version_and_age(self.url) is None:
                return b""
            raise

    def _is_mine(self, content: bytes) -> bool:
        return _token(content) == self._holder["token"]

    def _is_others(self, content: bytes) -> bool:
        return content != _FREE and not self._is_mine(content)

    def _content(self) -> bytes:
        """Return who has the lease; b"" if nobody has."""
        try:
            return storage.read(self.url)
        except StorageError:
            return b""

    def _renew_until_over(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with contextlib.suppress(StorageError):
                self._renew()

    def _renew(self) -> None:
        with self._guard:
            asked = time.clock_gettime(_CLOCK)
            self._version = self._version and self._written(self._version)
            if self._version:
                self._renewed = asked

    def check(self) -> None:
        """Raise StorageError if another command has taken the lease over, or it could not be renewed for too long."""
        if self._version is None:
            raise StorageError(f"{self.folder} was taken over by another command in the meantime.", _TAKEN)
        if time.clock_gettime(_CLOCK) - self._renewed > STALE_SECONDS:
            self._renew()
            if self._version is None:
                self.check()

    def publish(self, name: str, data: bytes) -> None:
        """Write the file if no other command has written it since the lock was acquired."""
        self._renew()
        self.check()
        url = self.folder.path(name)
        there = s3.version_and_age(url)
        is_known = there is None or (self._before is not None and there[0] == self._before[0])
        if is_known and s3.write_if(url, data, there and there[0]):
            return
        if storage.read(url) != data:  # else a request whose answer was lost has been repeated
            raise StorageError(f"{self.folder} was completed by another command in the meantime.", _TAKEN)

    def release(self) -> None:
        """Stop renewing, and delete the object, unless another command has it now."""
        self._over.set()
        self._thread.join(RENEW_SECONDS)
        with self._guard, contextlib.suppress(StorageError):
            if self._version:
                _free(self.folder, self._version)
