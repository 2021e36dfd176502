"""One instance of the rehearsal: its user data run by a shell, its power, its metadata."""

import base64
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from moto.ec2.models.instances import StateReason

HERE = Path(__file__).parent
PORTS = (0, 65_535)


class Instance:
    """A machine whose processes live on its own loopback address."""

    def __init__(self, moto, cloud):
        self.moto, self.cloud, self.id = moto, cloud, moto.id
        nic = moto.nics[0]
        self.private, self.public = nic.private_ip_address, nic.public_ip
        self.folder = cloud.folder / self.id
        self.folder.mkdir()
        self.alive, self.shutdown_at, self.notice = True, None, None
        self.process, self.born = None, time.time()

    @staticmethod
    def decode(user_data) -> bytes:
        """The bytes that the user sent."""
        return base64.b64decode(str(getattr(user_data, "_encoded_string", user_data) or ""))

    # --- power ---------------------------------------------------------------------------------

    def boot(self) -> None:
        """Run the user data as cloud-init does: a script, as root, once."""
        script = self.folder / "user-data"
        script.write_bytes(self.decode(self.moto.user_data))
        assert script.read_bytes().startswith(b"#!"), "only scripts are played"
        script.chmod(0o700)
        slow = self.cloud.settings.get("boot_seconds", 0)
        self.cloud.log("boot", id=self.id, type=self.moto.instance_type)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f"sleep {slow}; exec ./user-data"],
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
            "REHEARSAL_API": self.cloud.api,
            "REHEARSAL_PYTHON": sys.executable,
        }

    def vcpus(self) -> int:
        """Of the instance's type."""
        found = self.cloud.backend.describe_instance_types([self.moto.instance_type])
        return found[0]["VCpuInfo"]["DefaultVCpus"]

    def look_after(self) -> None:
        """Heed what the machine said with `shutdown`."""
        if reason := self.cloud.settings.get("state_reason"):  # EC2 ends it at once, as when it may not use a key
            self.cloud.log("state reason", id=self.id, code=reason["code"])
            self.moto.terminate()
            self.moto.state_reason = StateReason(**reason)
            return
        request = self.folder / "shutdown"
        if request.exists():
            when = request.read_text().strip()
            request.unlink()
            settings = self.cloud.settings
            if when == "now":
                seconds = settings.get("halt_seconds", 0)
            else:
                seconds = float(when.lstrip("+")) * settings.get("minute_seconds", 60)
            self.shutdown_at = time.time() + seconds
            self.cloud.log("shutdown", id=self.id, when=when)
        if self.shutdown_at and time.time() >= self.shutdown_at:
            self.shutdown_at = None
            self.cloud.log("power off", id=self.id)
            behavior = self.moto.instance_initiated_shutdown_behavior
            self.moto.terminate() if behavior == "terminate" else self.moto.stop()

    def cut_power(self, why: str) -> None:
        """End each process that has this instance in its environment."""
        self.alive = False
        while self._kill_all():  # until a look finds none: one may just have been starting another
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.cloud.log("gone", id=self.id, why=why)

    def _kill_all(self) -> bool:
        mine, found = f"REHEARSAL_INSTANCE={self.id}\0".encode(), False
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mine in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
                    found = True
        return found

    # --- what EC2 does to it ---------------------------------------------------------------------

    def lose(self) -> None:
        """The hardware dies."""
        self.cloud.log("lost", id=self.id)
        self.moto.terminate()

    def interrupt(self, seconds: float = 120) -> None:
        """EC2 takes a spot instance back: first the notice, then the power."""
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        self.notice = json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})
        self.shutdown_at = time.time() + seconds
        self.cloud.log("notice", id=self.id)

    def metadata(self, path: str) -> str | None:
        """Of 169.254.169.254."""
        if path == "spot/instance-action":
            return self.notice
        if time.time() < self.born + self.cloud.settings.get("profile_seconds", 0):
            self.cloud.log("no profile yet", id=self.id)
            return None
        profile = self.cloud.backend.iam_instance_profile_associations
        name = next((each.iam_instance_profile.name for each in profile.values() if each.instance_id == self.id), None)
        if not path.startswith("iam/security-credentials") or not name:
            return None
        if not path.removeprefix("iam/security-credentials").strip("/"):
            return name
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=6)
        return json.dumps(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": "ASIAPLAYEDPROFILE",
                "SecretAccessKey": "played",
                "Token": "played",
                "Expiration": later.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "LastUpdated": "2026-01-01T00:00:00Z",
            }
        )

    def console(self):
        """What the machine printed while it booted, as GetConsoleOutput gives it."""
        text = (self.folder / "console.log").read_bytes()[-65_536:]
        return {"InstanceId": self.id, "Output": base64.b64encode(text).decode(), "Timestamp": time.time()}

    # --- the network -----------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """Ids of its security groups."""
        return [group.id for nic in self.moto.nics.values() for group in nic.group_set]

    def reachable_from(self) -> list[dict]:
        """Its ingress rules: ports, and a network or a group."""
        rules = []
        for group_id in self.groups():
            group = self.cloud.backend.get_security_group_from_id(group_id)
            for rule in group.ingress_rules if group else []:
                every = str(rule.ip_protocol) == "-1"
                ports = PORTS if every else (int(rule.from_port), int(rule.to_port))
                rules.append(
                    {"ports": ports, "cidr": rule.ip_range.get("CidrIp"), "group": rule.source_group.get("GroupId")}
                )
        return rules
