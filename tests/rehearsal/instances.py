"""What EC2 knows and serves about one instance, whatever kind of machine it is: power, metadata, console, rules."""

import base64
import datetime
import json
import time
import uuid
from abc import ABC, abstractmethod

from moto.ec2.models.instances import StateReason

PORTS = (0, 65_535)


class Instance(ABC):
    """One instance. The kinds of machines are in played.py and virtual.py."""

    def __init__(self, moto, cloud):
        self.moto, self.cloud, self.id = moto, cloud, moto.id
        nic = moto.nics[0]
        self.private, self.public = nic.private_ip_address, nic.public_ip
        self.folder = cloud.folder / self.id
        self.folder.mkdir()
        self.alive, self.shutdown_at, self.notice = True, None, None
        self.token = uuid.uuid4().hex
        self.asked = 0.0  # when it first asked for its profile
        self.silent = False  # whether the metadata service does not answer it

    @staticmethod
    def decode(user_data) -> bytes:
        """The bytes that the user sent."""
        return base64.b64decode(str(getattr(user_data, "_encoded_string", user_data) or ""))

    # --- power ---------------------------------------------------------------------------------

    @abstractmethod
    def boot(self) -> None:
        """Start the machine, which runs the user data."""

    @abstractmethod
    def is_off(self) -> bool:
        """Whether the machine has powered itself off."""

    @abstractmethod
    def cut_power(self, why: str) -> None:
        """End the machine."""

    @abstractmethod
    def finish(self) -> None:
        """Wait until nothing of it is left."""

    def look_after(self) -> None:
        """Do what EC2 does by itself: end an instance that may not live, and notice one that is off."""
        if reason := self.cloud.settings.get("state_reason"):  # EC2 ends it at once, as when it may not use a key
            self.cloud.log("state reason", id=self.id, code=reason["code"])
            self.moto.terminate()
            self.moto.state_reason = StateReason(**reason)
        elif self.is_off() or (self.shutdown_at and time.time() >= self.shutdown_at):
            self.shutdown_at = None
            self.cloud.log("power off", id=self.id)
            behavior = self.moto.instance_initiated_shutdown_behavior
            self.moto.terminate() if behavior == "terminate" else self.moto.stop()

    def vcpus(self) -> int:
        """Of the instance's type."""
        found = self.cloud.backend.describe_instance_types([self.moto.instance_type])
        return found[0]["VCpuInfo"]["DefaultVCpus"]

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

    def silence(self) -> None:
        """The metadata service answers it no longer."""
        self.cloud.log("silent", id=self.id)
        self.silent = True

    def console(self):
        """What the machine printed while it booted, as GetConsoleOutput gives it."""
        text = (self.folder / "console.log").read_bytes()[-65_536:]
        return {"InstanceId": self.id, "Output": base64.b64encode(text).decode(), "Timestamp": time.time()}

    # --- what it may ask of 169.254.169.254 --------------------------------------------------------

    def metadata(self, path: str) -> str | None:
        """The text below meta-data/, or the names in a folder of it; None if there is no such path."""
        node = self._tree()
        for word in filter(None, path.split("/")):
            node = node.get(word) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return node
        slash = "" if "security-credentials" in path else "/"
        return "\n".join(f"{name}{slash if isinstance(inner, dict) else ''}" for name, inner in node.items())

    def _tree(self) -> dict:
        mac, nic = self.mac, self.moto.nics[0]
        name, net = f"ip-{self.private.replace('.', '-')}.ec2.internal", self.cloud.network.vpc
        interface = {"device-number": "0", "interface-id": nic.id, "local-ipv4s": self.private, "mac": mac}
        interface |= {"owner-id": "123456789012", "subnet-id": nic.subnet.id, "subnet-ipv4-cidr-block": net}
        interface |= {"vpc-ipv4-cidr-block": net, "vpc-ipv4-cidr-blocks": net}
        public = {"public-ipv4": self.public} if self.public else {}
        return {
            "ami-id": self.moto.image_id,
            "hostname": name,
            "instance-action": "none",
            "instance-id": self.id,
            "instance-life-cycle": "on-demand",
            "instance-type": self.moto.instance_type,
            "local-hostname": name,
            "local-ipv4": self.private,
            "mac": mac,
            "network": {"interfaces": {"macs": {mac: interface}}},
            "placement": {"availability-zone": nic.subnet.availability_zone, "region": "us-east-1"},
            "profile": "default-hvm",
            "reservation-id": "r-1",
            "security-groups": "\n".join(group.name for group in nic.group_set),
            "services": {"domain": "amazonaws.com", "partition": "aws"},
            **public,
            **({"spot": {"instance-action": self.notice}} if self.notice else {}),
            **self._profile(),
        }

    @property
    def mac(self) -> str:
        """The address of its network interface."""
        return "02:00:" + ":".join(f"{int(part):02x}" for part in self.private.split("."))

    def _profile(self) -> dict:
        profiles = self.cloud.backend.iam_instance_profile_associations
        name = next((each.iam_instance_profile.name for each in profiles.values() if each.instance_id == self.id), None)
        if not name:
            return {}
        self.asked = self.asked or time.time()
        if time.time() < self.asked + self.cloud.settings.get("profile_seconds", 0):
            self.cloud.log("no profile yet", id=self.id)
            return {}
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=6)
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAPLAYEDPROFILE",
            "SecretAccessKey": "played",
            "Token": "played",
            "Expiration": later.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "LastUpdated": "2026-01-01T00:00:00Z",
        }
        return {"iam": {"security-credentials": {name: json.dumps(credentials)}}}

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
