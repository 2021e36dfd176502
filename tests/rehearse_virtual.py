"""The rehearsal of EC2 with virtual machines, within the network namespaces that rehearsal/vm/run.sh makes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rehearse import HERE, Rehearsal

NAME = os.environ.get("REHEARSAL_VM", "")  # of the namespaces; set where virtual machines are wanted
REGISTRY = "172.31.0.2:5000"
INDEX_PORT = "5001"


class VirtualRehearsal(Rehearsal):
    """A region whose instances are QEMU's, and a registry of container images."""

    image = f"{REGISTRY}/dask-classify:1"
    network = HERE / "rehearsal" / "vm" / "client"
    idle_timeout = "4m"

    def __init__(self, folder: Path):
        self.machine = Path(os.environ["REHEARSAL_VM_MACHINE"])
        self._registry = self._start_registry(folder)
        self._index = self._start_index(folder)
        self.slow = 1 if (self.machine / "accelerator").read_text().startswith("kvm") else 4
        super().__init__(folder)

    def _start_registry(self, folder):
        settings = folder / "registry.yml"
        settings.write_text(
            "version: 0.1\nlog: {level: warn}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.machine / 'registry'}}}}}\n"
            f'http: {{addr: "{REGISTRY}"}}\n'
        )
        log = (folder / "registry.log").open("w")
        return subprocess.Popen([*_in_region(), "docker-registry", "serve", settings], stdout=log, stderr=log)

    def _start_index(self, folder):
        words = [sys.executable, "-m", "http.server", "--bind", "172.31.0.2", "--directory", self.machine / "index"]
        log = (folder / "index.log").open("w")
        return subprocess.Popen([*_in_region(), *words, INDEX_PORT], stdout=log, stderr=log)

    def _region_command(self):
        cloud = HERE / "rehearsal" / "cloud.py"
        return [*_in_region(), sys.executable, cloud, "virtual", self.folder, self.machine]

    def close(self):
        super().close()
        for server in (self._registry, self._index):
            server.terminate()
            server.wait(60)

    def registry_pid(self):
        """To stop it for a while."""
        return self._registry.pid

    def console(self, instance_id):
        """What a machine has printed so far."""
        file = self.folder / instance_id / "console.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def launch(self, user_data, type="t3.small"):
        """An instance without a cluster: its id. Its tag makes the fixture count it."""
        ec2 = self.client("ec2")
        subnet = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1a"]}])["Subnets"][0]
        group = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
        tags = [{"Key": "dask-classify:cluster", "Value": f"bare-{time.time_ns()}"}]
        interface = {"DeviceIndex": 0, "SubnetId": subnet["SubnetId"], "Groups": [group]}
        started = ec2.run_instances(
            ImageId=ec2.describe_images()["Images"][0]["ImageId"], InstanceType=type, MinCount=1, MaxCount=1,
            UserData=user_data, InstanceInitiatedShutdownBehavior="terminate", NetworkInterfaces=[interface],
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}], ClientToken=str(time.time_ns()),
        )  # fmt: skip
        return started["Instances"][0]["InstanceId"]


def _in_region():
    """How a command is started in the region; the kernel ends it if the tests are killed."""
    return ["ip", "netns", "exec", f"{NAME}-vpc", "setpriv", "--pdeathsig", "TERM"]


# --- as a plugin of pytest: the table of what was tried --------------------------------------------------------

_SECONDS = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        what = (item.function.__doc__ or "").strip().split("\n")[0]
        name = item.name.removeprefix("test_").replace("_", " ")
        _SECONDS[item.nodeid] = f"| {name} | {report.outcome} | {report.duration:.0f} | {what} |"
    if report.failed:  # the end of the tests is an hour away
        print(f"\n{item.nodeid}, {report.when}\n{report.longreprtext}", file=sys.__stderr__, flush=True)
    return report


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("\n| case | outcome | seconds | what was asserted |\n|---|---|---|---|")
    for line in _SECONDS.values():
        terminalreporter.write_line(line)
