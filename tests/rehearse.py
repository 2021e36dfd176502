"""The rehearsal of EC2 for tests: starts it, tells it what shall go wrong, asks it what happened."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import botocore.session

HERE = Path(__file__).parent
REGION = "us-east-1"
DASK_CLASSIFY = Path(sys.executable).parent / "dask-classify"
IMAGE = "registry.example/dask-classify:1"
PATIENCE = 5 if os.environ.get("REHEARSAL_VM") else 1  # virtual machines may be slow
PRIVATE_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dask-classify:1"


class Rehearsal:
    """A region of AWS on this machine, in a folder of its own."""

    image = IMAGE
    network = HERE / "rehearsal" / "network"  # for each Python of the user
    idle_timeout = "12s"  # longer than the first worker comes after its scheduler
    slow = 1  # how much longer a run must be, so that something can happen to its machines meanwhile

    def __init__(self, folder: Path):
        self.folder, self._clients, self._started = folder, {}, []
        self._process = subprocess.Popen(
            self._region_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "cloud.log").open("w"),
            env={**os.environ, "AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        )
        where = json.loads(self._process.stdout.readline())
        self.api, self._control = where["api"], where["control"]
        self.client("s3").create_bucket(Bucket="bucket")

    def _region_command(self):
        self.net, self._lock = _free_net()
        return [sys.executable, HERE / "rehearsal" / "cloud.py", "played", self.folder, str(self.net)]

    def close(self):
        self._process.stdin.close()
        self._process.wait(300)

    # --- levers --------------------------------------------------------------------------------

    def _post(self, path, body):
        data = json.dumps(body).encode()
        urllib.request.urlopen(urllib.request.Request(self._control + path, data=data), timeout=300).read()

    def settings(self, **settings):
        """What shall go wrong: faults=[{"call", "code", "from", "to"}], boot_seconds, appear_seconds, images ...

        Of virtual machines: disks (base or loaded) and vcpus, both by instance type, machine (a script before boot),
        clock, crashes=[{"at"}].
        """
        self._mark = len(self.all_events())
        self._post("/settings", settings)

    def pull(self, lever, instance_id, **options):
        """A lever of an instance: lose, interrupt; of a virtual one, too: crash, reboot, freeze, thaw."""
        self._post(f"/{lever}", {"id": instance_id, "with": options})

    # --- what happened -------------------------------------------------------------------------

    def all_events(self):
        return json.load(urllib.request.urlopen(self._control + "/events", timeout=300))

    def events(self, what, **details):
        """Since the settings were made."""
        found = [each for each in self.all_events()[self._mark :] if each["what"] == what]
        return [each for each in found if details.items() <= each.items()]

    def client(self, service):
        """Of botocore; making one takes a third of a second."""
        if service not in self._clients:
            session = botocore.session.get_session()
            self._clients[service] = session.create_client(
                service, region_name=REGION, endpoint_url=self.api, aws_access_key_id="a", aws_secret_access_key="b"
            )
        return self._clients[service]

    def stored(self, key):
        """The JSON of an object in the bucket; {} if there is none."""
        s3 = self.client("s3")
        if not s3.list_objects_v2(Bucket="bucket", Prefix=key)["KeyCount"]:
            return {}
        return json.loads(s3.get_object(Bucket="bucket", Key=key)["Body"].read())

    def instances(self, *states, role=None):
        """EC2's descriptions."""
        filters = [{"Name": "tag-key", "Values": ["dask-classify:cluster"]}]
        filters += [{"Name": "instance-state-name", "Values": list(states)}] if states else []
        filters += [{"Name": "tag:dask-classify:role", "Values": [role]}] if role else []
        pages = self.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
        return [each for page in pages for held in page["Reservations"] for each in held["Instances"]]

    def running(self, role=None):
        return [each["InstanceId"] for each in self.instances("pending", "running", role=role)]

    def remains(self):
        """Instances and security groups that cost or clutter, whoever has tagged them."""
        pages = self.client("ec2").get_paginator("describe_instances").paginate()
        every = [each for page in pages for held in page["Reservations"] for each in held["Instances"]]
        left = [each["InstanceId"] for each in every if each["State"]["Name"] != "terminated"]
        groups = self.client("ec2").describe_security_groups()["SecurityGroups"]
        return left + [each["GroupId"] for each in groups if each["GroupName"] != "default"]

    def wipe(self):
        """End what a test left, on purpose or since it failed, past the faults."""
        for process in self._started:
            if process.poll() is None:  # it would launch instances in the next test
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._started.clear()
        self._post("/settings", {"plug": True})
        ec2 = self.client("ec2")
        left = [each for each in self.remains() if each.startswith("i-")]
        if left:
            ec2.terminate_instances(InstanceIds=left)
        wait_for(lambda: not [each for each in self.remains() if each.startswith("i-")])
        for group in self.remains():
            ec2.delete_security_group(GroupId=group)

    # --- a user --------------------------------------------------------------------------------

    def environment(self, **more):
        """Of a user who has configured AWS, with an image, and with few seconds to lose."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.network),
            "REHEARSAL_FOLDER": str(self.folder),
            "AWS_ENDPOINT_URL": self.api,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DASK_CLASSIFIER__CLUSTER": "ec2",
            "DASK_CLASSIFIER__IMAGE": self.image,
            "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1s",
            "COLUMNS": "120",
        } | {name: str(value) for name, value in more.items()}

    def start(self, *args, **environment):
        """The command, under way."""
        return self._start([DASK_CLASSIFY, *args], environment)

    def command(self, *args, check=None, **environment):
        """The command, finished: returncode, stdout, stderr."""
        process = self.start(*args, **environment)
        return finish(process, check)

    def python(self, text, check=0, **environment):
        """A user's script, finished."""
        script = self.folder / "script.py"
        script.write_text(text)
        return finish(self.start_python(script, **environment), check)

    def start_python(self, script, *args, **environment):
        """A user's script, under way."""
        return self._start([sys.executable, script, *args], environment)

    def _start(self, words, environment):
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process


def finish(process, check=None, seconds=600):
    """Wait for a command of the rehearsal."""
    try:
        process.stdout_text, process.stderr_text = process.communicate(timeout=seconds * PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    assert check is None or process.returncode == check, process.stderr_text
    return process


def wait_for(condition, seconds=300):
    """Whatever `condition` gives once it is true."""
    until = time.monotonic() + seconds * PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.1)
    return found


def _free_net():
    """Two neighbouring networks 127.N.0.0/16 that no other rehearsal has, and the socket that holds them."""
    for net in range(60, 250, 2):
        lock = socket.socket()
        try:
            lock.bind((f"127.{net}.255.254", 9))
            return net, lock
        except OSError:
            lock.close()
    raise AssertionError("no network is free")
