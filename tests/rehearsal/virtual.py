"""Machines that are virtual: QEMU boots a Debian whose cloud-init gets the user data from 169.254.169.254.

The region lives in a network namespace, which vm/network.sh makes. It needs root.
"""

import base64
import contextlib
import os
import re
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

from instances import Instance

SIZES = {"t3.small": (1, 1024), "c7i.large": (1, 2048)}  # vCPUs, MiB; QEMU translates one vCPU faster than two
# An old processor is translated faster than one with wide vectors.
PROCESSORS = {"tcg": "Nehalem", "kvm": "max,la57=off,arch-capabilities=off"}
LAST_STAGES = "systemd.mask=cloud-config.service systemd.mask=cloud-final.service"
KERNEL = "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 biosdevname=0 loglevel=6"
KERNEL += " mitigations=off nowatchdog apparmor=0 audit=0"  # less to do in a boot
PUBLIC = "198.51.100."


def run(*words, check=True, **options):
    return subprocess.run([str(word) for word in words], check=check, capture_output=True, text=True, **options)


class VirtualNetwork:
    """A bridge with DHCP, on which nftables translates public addresses and enforces security groups."""

    vpc = "172.31.0.0/16"
    api, control, metadata = ("172.31.0.2", 4566), ("172.31.0.2", 4567), ("169.254.169.254", 80)

    def __init__(self, folder: Path):
        self.hosts, self._rules = folder / "hosts", ""
        self.hosts.mkdir()
        self.dnsmasq = subprocess.Popen(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--interface=br0", "--bind-interfaces",
                "--except-interface=lo", "--no-resolv", "--no-hosts", "--dhcp-range=172.31.0.0,static,255.255.0.0,1h",
                f"--dhcp-hostsdir={self.hosts}", "--dhcp-option=option:router,172.31.0.1",
                "--dhcp-option=option:dns-server,172.31.0.1", f"--dhcp-leasefile={folder / 'leases'}",
                "--dhcp-authoritative", f"--pid-file={folder / 'dnsmasq.pid'}",
                f"--log-facility={folder / 'dnsmasq.log'}", "--user=root",
            ]
        )  # fmt: skip

    def close(self) -> None:
        self.dnsmasq.terminate()

    def public_address(self, number: int) -> str:
        return f"{PUBLIC}{number}"

    def write_rules(self, instances: list[Instance]) -> None:
        """Security groups as sets of addresses that may connect."""
        alive = [each for each in instances if each.alive]
        callers, peers = [], []
        for each in alive:
            for rule in each.reachable_from():
                if rule["group"]:
                    peers += [f"{peer.private} . {each.private}" for peer in alive if rule["group"] in peer.groups()]
                else:
                    first, last = rule["ports"]
                    callers.append(f"{rule['cidr'].removesuffix('/32')} . {each.private} . {first}-{last}")
        sets = {"machines": [each.private for each in alive], "callers": callers, "peers": peers}
        text = "".join(
            f"flush set bridge groups {name}\n"
            + (f"add element bridge groups {name} {{ {', '.join(dict.fromkeys(items))} }}\n" if items else "")
            for name, items in sets.items()
        )
        if text != self._rules:
            run("nft", "-f", "-", input=text)
            self._rules = text


class VirtualInstance(Instance):
    """A machine of QEMU, with a disk of its own on top of a common one."""

    _numbers = iter(range(1, 10_000))
    process = None
    lost = False

    def __init__(self, moto, cloud):
        super().__init__(moto, cloud)
        self.tap = f"tap{next(self._numbers)}"
        self.disk = self.folder / "disk.qcow2"
        self.uuid = uuid.UUID("ec2" + uuid.uuid4().hex[3:])  # by which cloud-init knows EC2
        self.crashes = [dict(crash) for crash in cloud.settings.get("crashes", [])]

    def boot(self) -> None:
        host = f"{self.mac},{self.private},ip-{self.private.replace('.', '-')}\n"
        (self.cloud.network.hosts / self.id).write_text(host)
        run("ip", "tuntap", "add", self.tap, "mode", "tap")
        run("ip", "link", "set", self.tap, "master", "br0", "up")
        if self.public:
            run("nft", "add", "element", "ip", "nat", "public", f"{{ {self.public} : {self.private} }}")
        disks = self.cloud.settings.get("disks", {})
        base = self.cloud.images / f"{disks.get(self.moto.instance_type, 'loaded')}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, self.disk)
        self.cloud.log("boot", id=self.id, type=self.moto.instance_type, private=self.private)
        self._start()

    def _start(self) -> None:
        settings, mac = self.cloud.settings, self.mac
        accelerator = (self.cloud.images / "accelerator").read_text().strip()
        machine = base64.b64encode(settings.get("machine", "").encode()).decode()
        vcpus, memory = SIZES[self.moto.instance_type]
        vcpus = settings.get("vcpus", {}).get(self.moto.instance_type, vcpus)
        words = [
            "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
            "-nodefaults", "-accel", accelerator, "-cpu", PROCESSORS[accelerator.partition(",")[0]],
            "-smp", vcpus, "-m", memory,
            "-kernel", self.cloud.images / "vmlinuz",
            "-append", f"{KERNEL}{'' if settings.get('all_stages') else f' {LAST_STAGES}'}"
                       f"{f' rehearsal={machine}' if machine else ''}",
            "-smbios", "type=0,vendor=Amazon EC2",
            "-smbios", f"type=1,manufacturer=Amazon EC2,product={self.moto.instance_type},"
                       f"uuid={self.uuid},serial={self.uuid}",
            # as on EC2, and without an initrd: the kernel has its driver
            "-drive", f"file={self.disk},if=none,id=root,cache=unsafe,discard=unmap",
            "-device", f"nvme,drive=root,serial={self.id}", "-device", "virtio-rng-pci",
            "-netdev", f"tap,id=n0,ifname={self.tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n0,mac={mac}", "-display", "none",
            "-chardev", f"file,id=console,append=on,path={self.folder / 'console.log'}", "-serial", "chardev:console",
            "-monitor", f"unix:{self.folder / 'monitor'},server,nowait",
            *(["-rtc", f"base={settings['clock']}"] if "clock" in settings else []),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "qemu.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def look_after(self) -> None:
        if self.crashes and re.search(self.crashes[0]["at"], self._console_text()):
            self.cloud.log("crash", id=self.id, at_text=self.crashes.pop(0)["at"])
            self.crash()
        super().look_after()

    def _console_text(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""

    def is_off(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def cut_power(self, why: str) -> None:
        """As EC2 does: the power button first, then the plug."""
        self.alive = False
        at_once = self.lost or why == "the rehearsal is over" or self.cloud.settings.get("plug")
        seconds = 0 if at_once else 60
        self._ending = threading.Thread(target=self._end, args=(why, seconds))
        self._ending.start()

    def finish(self) -> None:
        self.process.kill()
        self._ending.join()

    def _end(self, why: str, seconds: float) -> None:
        began, used = time.time(), self._processor_seconds()
        try:
            if self.process.poll() is None and seconds:
                self._monitor("system_powerdown")
                self.process.wait(seconds)
        except (OSError, subprocess.TimeoutExpired):
            self.cloud.log("plug", id=self.id)
        finally:
            self.process.kill()
            self.process.wait()
        run("ip", "link", "del", self.tap, check=False)
        if self.public:
            run("nft", "delete", "element", "ip", "nat", "public", f"{{ {self.public} }}", check=False)
        (self.cloud.network.hosts / self.id).unlink(missing_ok=True)
        self.disk.unlink(missing_ok=True)
        self.cloud.log("gone", id=self.id, why=why, after=round(time.time() - began, 1), processor_seconds=used)

    def _processor_seconds(self) -> float | None:
        """Return what it has used of this computer; None if it is off."""
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return None

    # --- levers ----------------------------------------------------------------------------------

    def lose(self) -> None:
        """Without the power button."""
        self.lost = True
        super().lose()

    def crash(self) -> None:
        """Reset: what the kernel had not written is lost; the machine boots again."""
        self._monitor("system_reset")

    def reboot(self) -> None:
        """As RebootInstances."""
        self.cloud.log("reboot", id=self.id)
        self._monitor("sendkey ctrl-alt-delete")

    def freeze(self) -> None:
        """The machine stands still."""
        self.cloud.log("freeze", id=self.id)
        self._monitor("stop")

    def thaw(self) -> None:
        """It goes on."""
        self._monitor("cont")

    def _monitor(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(5)
            monitor.connect(str(self.folder / "monitor"))
            monitor.recv(4096)
            monitor.sendall(f"{command}\n".encode())
            time.sleep(0.3)
            monitor.recv(65_536)
