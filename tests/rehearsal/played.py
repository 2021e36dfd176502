"""Machines that are played: the user data is run by a shell of this computer, on a loopback address of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from instances import Instance

HERE = Path(__file__).parent


class PlayedNetwork:
    """Loopback: two networks, 127.NET for private and 127.(NET + 1) for public addresses."""

    api = ("127.0.0.1", 0)  # 0: any free port
    control = metadata = ("127.0.0.1", 0)

    def __init__(self, folder: Path, net: int):
        self.folder, self.net, self.vpc = folder, net, f"127.{net}.0.0/16"
        self.metadata_port = self.control_port = 0
        self._rules = ""

    def close(self) -> None:
        """There is nothing to end."""

    def public_address(self, number: int) -> str:
        return f"127.{self.net + 1}.{number // 250}.{number % 250 + 1}"

    def write_rules(self, instances: list[Instance]) -> None:
        """What the network of each process needs to know: who is who, and who may reach whom."""
        rules = {each.private: each.reachable_from() for each in instances if each.alive}
        public = {each.public: each.private for each in instances if each.public and each.alive}
        groups = {each.private: each.groups() for each in instances}
        told = {"rules": rules, "public": public, "groups": groups, "net": self.net}
        told |= {"metadata": self.metadata_port, "control": self.control_port}
        if self._rules != (text := json.dumps(told)):
            self._rules = text
            temporary = self.folder / "network.new"
            temporary.write_text(text)
            temporary.replace(self.folder / "network.json")


class PlayedInstance(Instance):
    """A machine whose processes live on its own loopback address."""

    process = None

    def boot(self) -> None:
        """Run the user data as cloud-init does a boothook: as a file, as root."""
        first, _, script = self.decode(self.moto.user_data).partition(b"\n")
        assert first == b"#cloud-boothook" and script.startswith(b"#!"), "only boothooks are played"
        file = self.folder / "boothook"
        file.write_bytes(script)
        file.chmod(0o700)
        slow = self.cloud.settings.get("boot_seconds", 0)
        self.cloud.log("boot", id=self.id, type=self.moto.instance_type)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'sleep {slow}; exec "{file}"'],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "console.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """What the user data finds; REHEARSAL_* is for the played commands and network."""
        return {
            "PATH": f"{HERE / 'machine'}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "REHEARSAL_INSTANCE": self.id,
            "REHEARSAL_ADDRESS": self.private,
            "REHEARSAL_VCPUS": str(self.vcpus()),
            "REHEARSAL_FOLDER": str(self.cloud.folder),
            "REHEARSAL_MINUTE": str(self.cloud.settings.get("minute_seconds", 60)),
            "REHEARSAL_API": self.cloud.api,
            "REHEARSAL_PYTHON": sys.executable,
        }

    def is_off(self) -> bool:
        """Heed what the machine said with `systemctl poweroff`."""
        request = self.folder / "poweroff"
        if request.exists():
            request.unlink()
            self.cloud.log("shutdown", id=self.id)
            self.shutdown_at = time.time() + self.cloud.settings.get("halt_seconds", 0)
        return False  # it is off once this time has come

    def cut_power(self, why: str) -> None:
        """End each process that has this instance in its environment."""
        self.alive = False
        while self._kill_all():  # until a look finds none: one may just have been starting another
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.cloud.log("gone", id=self.id, why=why)

    def finish(self) -> None:
        """Nothing is left when the power has been cut."""

    def _kill_all(self) -> bool:
        mine, found = f"REHEARSAL_INSTANCE={self.id}\0".encode(), False
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mine in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
                    found = True
        return found
