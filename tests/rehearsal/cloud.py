"""The rehearsal's region of AWS: moto's EC2, S3, SSM, IAM and STS over HTTP, and instances that really boot.

    python cloud.py played FOLDER NET
    python cloud.py virtual FOLDER IMAGES

serves until its standard input is closed, then cuts the power of its instances. Machines are played on
loopback, or virtual, in a network namespace. It prints one line of JSON: the addresses of AWS's API and of
its own control. See README.md beside this file.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ |= {"MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true", "MOTO_ENABLE_KEYPAIR_VALIDATION": "true"}

import moto.ec2.models.elastic_network_interfaces as interfaces
import moto.ec2.models.vpcs as vpcs
from instances import Instance
from metadata import Metadata
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance as MotoInstance
from moto.ec2.responses.general import General
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from played import PlayedInstance, PlayedNetwork
from virtual import VirtualInstance, VirtualNetwork

ACCOUNT, REGION = "123456789012", "us-east-1"
FILTER_VALUES = 200  # of one filter
USER_DATA_LIMIT = 16_384  # bytes, before base64
_OWN_FAULTS = ("Insufficient", "Internal")
TOO_LATE = {"shutting-down", "terminated"}


class Refusal(EC2ClientError):
    """An error of EC2, with the HTTP status that EC2 gives: what is its own fault has 500, and clients retry that."""

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.status = 503 if code == "RequestLimitExceeded" else 500 if code.startswith(_OWN_FAULTS) else 400


class Cloud:
    """The instances, the log of what happened, and the faults to come."""

    def __init__(self, folder: Path, machine: type[Instance], network):
        self.folder, self.machine, self.network = folder, machine, network
        self.instances: dict[str, Instance] = {}
        self.events: list[dict] = []
        self.settings: dict = {}
        self.lock = threading.RLock()
        self.calls: dict[str, int] = {}
        self.by_token: dict[str, object] = {}
        self.addresses = iter(range(1, 60_000))
        self.over = threading.Event()

    def log(self, what: str, **details) -> None:
        with self.lock:
            self.events.append({"what": what, "at": time.time(), **details})
            with (self.folder / "events.log").open("a") as log:
                print(json.dumps(self.events[-1]), file=log)

    def reset(self, settings: dict) -> None:
        """New settings and faults; calls are counted from 1 again."""
        with self.lock:
            self.settings, self.calls = settings, {}
            (self.folder / "images.json").write_text(json.dumps(settings.get("images", {})))

    @property
    def backend(self) -> EC2Backend:
        return ec2_backends[ACCOUNT][REGION]

    # --- faults --------------------------------------------------------------------------------

    def check(self, call: str, **details) -> None:
        """Log an API call; raise if a fault is due: {"call", "code", "from", "to", and details to match}."""
        with self.lock:
            number = self.calls[call] = self.calls.get(call, 0) + 1
        for fault in self.settings.get("faults", []):
            first, last = fault.get("from", 1), fault.get("to", 10**9)
            rest = {key: value for key, value in fault.items() if key in details}
            if fault["call"] == call and first <= number <= last and rest.items() <= details.items():
                self.log("fault", call=call, number=number, code=fault["code"], **details)
                raise Refusal(fault["code"], fault.get("message", f"({fault['code']} was played)"))
        self.log("call", call=call, number=number, **details)

    # --- booting -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Boot what runs, cut the power of what does not, and let instances shut themselves down."""
        with self.lock:
            found = list(self.backend.all_instances())
            new = [each for each in found if each._state.name == "running" and each.id not in self.instances]
            for each in new:
                self.instances[each.id] = self.machine(each, self)
            self.network.write_rules(list(self.instances.values()))
        for each in new:
            self.instances[each.id].boot()
        for instance in list(self.instances.values()):
            if instance.alive and instance.moto._state.name != "running":
                instance.cut_power(instance.moto._state.name)
            elif instance.alive:
                instance.look_after()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self.tick()
            except Exception as error:  # the other machines must still be ended
                self.log("error", error=repr(error))
                traceback.print_exc()
            self.over.wait(0.05)
        for instance in self.instances.values():
            if instance.alive:
                instance.cut_power("the rehearsal is over")
            instance.finish()


# --- what moto lacks --------------------------------------------------------------------------------


def extend_moto(cloud: Cloud) -> None:
    """The network's addresses, faults, limits, idempotent launches, slow appearance and termination."""
    create_vpc = vpcs.VPCBackend.create_vpc

    def create(self, cidr_block, **options):
        return create_vpc(self, cloud.network.vpc if options.get("is_default") else cidr_block, **options)

    vpcs.VPCBackend.create_vpc = create

    interfaces.random_public_ip = lambda: cloud.network.public_address(next(cloud.addresses))
    execute = ActionResult.execute_result

    def with_status(self, context):
        status, headers, body = execute(self, context)
        return self.result.status if isinstance(self.result, Refusal) else status, headers, body

    ActionResult.execute_result = with_status
    _patch_launch(cloud)
    _patch_listing(cloud)
    _patch_terminate(cloud)
    _patch_groups(cloud)

    def console(self):
        instance = cloud.instances.get(self._get_param("InstanceId"))
        return ActionResult(instance.console() if instance else {})

    General.get_console_output = console


def _patch_launch(cloud: Cloud) -> None:
    run_instances = EC2Backend.run_instances

    def run(self, image_id, count, user_data, groups, **options):
        zone = self.get_subnet(options["nics"][0]["SubnetId"]).availability_zone if options["nics"] else None
        market = "spot" if options.get("instance_market_options") else "on-demand"
        size = len(Instance.decode(user_data))
        asked = {"type": options["instance_type"], "zone": zone, "market": market}
        cloud.check("RunInstances", **asked, user_data=size, profile=options.get("iam_instance_profile_name"))
        if size > USER_DATA_LIMIT:
            raise Refusal("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
        token = options["client_token"]
        if token not in cloud.by_token:
            cloud.by_token[token] = run_instances(self, image_id, count, user_data, groups, **options)
        time.sleep(cloud.settings.get("launch_seconds", 0))
        if cloud.calls["RunInstances"] <= cloud.settings.get("lose_answers", 0):
            raise Refusal("InternalError", "(the answer was lost)")
        return cloud.by_token[token]

    EC2Backend.run_instances = run


def _patch_listing(cloud: Cloud) -> None:
    """DescribeInstances may miss a new instance for a while; its state may lag."""
    get_multi = EC2Backend.get_multi_instances_by_id
    all_reservations = EC2Backend.all_reservations
    born: dict[str, float] = {}

    def hidden(instance) -> bool:
        since = born.setdefault(instance.id, time.time())
        missing = time.time() < since + cloud.settings.get("appear_seconds", 0)
        if missing:
            cloud.log("hidden", id=instance.id)
        return missing

    def listing(self, filters=None):
        cloud.check("DescribeInstances")
        filters = dict(filters or {})
        if any(len(values) > FILTER_VALUES for values in filters.values()):
            raise Refusal("FilterLimitExceeded", f"The maximum number of filter values is {FILTER_VALUES}")
        tokens = filters.pop("client-token", None)
        found = all_reservations(self, filters)
        if tokens is not None:  # moto does not know this filter
            asked = [cloud.by_token[token] for token in tokens if token in cloud.by_token]
            found = [each for each in found if each.id in {reservation.id for reservation in asked}]
        for reservation in found:
            reservation.instances = [each for each in reservation.instances if not hidden(each)]
        return [reservation for reservation in found if reservation.instances]

    def by_ids(self, ids, filters=None):
        if missing := [each for each in ids if (known := self.get_instance_by_id(each)) and hidden(known)]:
            raise Refusal("InvalidInstanceID.NotFound", f"The instance ID '{missing[0]}' does not exist")
        return get_multi(self, ids, filters)

    EC2Backend.describe_instances = listing
    EC2Backend.get_multi_instances_by_id = by_ids


def _patch_terminate(cloud: Cloud) -> None:
    """An instance shuts down for a while; a second terminate is no error."""
    terminate = MotoInstance.terminate
    terminate_instances = EC2Backend.terminate_instances

    def end(self):
        if self._state.name in TOO_LATE:
            return self._state
        seconds = cloud.settings.get("terminate_seconds", 0)
        if not seconds:
            return terminate(self)
        self._state.name, self._state.code = "shutting-down", 32
        threading.Timer(seconds, partial(terminate, self)).start()
        return self._state

    def end_all(self, instance_ids):
        cloud.check("TerminateInstances", ids=list(instance_ids))
        return terminate_instances(self, instance_ids)

    MotoInstance.terminate = end
    EC2Backend.terminate_instances = end_all


def _patch_groups(cloud: Cloud) -> None:
    """A security group in use cannot be deleted; an instance that changes its groups uses the others no more."""
    delete, create = EC2Backend.delete_security_group, EC2Backend.create_security_group
    change, describe = EC2Backend.modify_instance_security_groups, EC2Backend.describe_security_groups

    def delete_group(self, name=None, group_id=None):
        cloud.check("DeleteSecurityGroup", group=group_id)
        for instance in self.all_instances():
            used = {group.id for nic in instance.nics.values() for group in nic.group_set}
            if instance._state.name != "terminated" and group_id in used:
                raise Refusal("DependencyViolation", f"resource {group_id} has a dependent object")
        return delete(self, name=name, group_id=group_id)

    def create_group(self, *args, **options):
        if not options.get("is_default") and options.get("name") != "default" and "default" not in args[:1]:
            cloud.check("CreateSecurityGroup")
            time.sleep(cloud.settings.get("group_seconds", 0))
        return create(self, *args, **options)

    def describe_groups(self, *args, **options):
        cloud.check("DescribeSecurityGroups")
        return describe(self, *args, **options)

    def change_groups(self, instance_id, new_group_id_list):
        cloud.check("ModifyInstanceAttribute", id=instance_id)
        instance = change(self, instance_id, new_group_id_list)
        for nic in instance.nics.values():
            nic._group_set = []  # to which moto adds those of the instance
        return instance

    EC2Backend.delete_security_group, EC2Backend.create_security_group = delete_group, create_group
    EC2Backend.modify_instance_security_groups, EC2Backend.describe_security_groups = change_groups, describe_groups


# --- checkip, and the rehearsal's own control ----------------------------------------------------------


class Control(BaseHTTPRequestHandler):
    """checkip.amazonaws.com for clients, and levers for tests."""

    cloud: Cloud
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, body: str, status: int = 200) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def do_GET(self):
        if self.path == "/checkip":
            return self.answer(f"{self.client_address[0]}\n")
        with self.cloud.lock:
            return self.answer(json.dumps(self.cloud.events))

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.path == "/settings":
            self.cloud.reset(told)
        else:
            until = time.monotonic() + 10
            while told["id"] not in self.cloud.instances and time.monotonic() < until:
                time.sleep(0.05)  # moto lists it before it is a machine
            lever = getattr(self.cloud.instances[told["id"]], self.path.removeprefix("/"))
            lever(**told.get("with", {}))
        self.answer("{}")


def main() -> None:
    kind, folder, where = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test's Ctrl-C is for the command
    played = kind == "played"
    network = PlayedNetwork(folder, int(where)) if played else VirtualNetwork(folder)
    cloud = Cloud(folder, PlayedInstance if played else VirtualInstance, network)
    cloud.images = Path(where)
    cloud.reset({})
    extend_moto(cloud)
    api = ThreadedMotoServer(*network.api, verbose=False)
    api.start()
    network.metadata_port = serve(Metadata, network.metadata, cloud).server_address[1]
    host, network.control_port = serve(Control, network.control, cloud).server_address
    cloud.api = "http://{}:{}".format(*api.get_host_and_port())
    network.write_rules([])
    print(json.dumps({"api": cloud.api, "control": f"http://{host}:{network.control_port}"}), flush=True)
    power = threading.Thread(target=cloud.run)
    power.start()
    sys.stdin.read()  # until whoever started this has gone
    cloud.over.set()
    power.join()
    network.close()
    os._exit(0)


def serve(handler: type[BaseHTTPRequestHandler], address: tuple[str, int], cloud: Cloud) -> ThreadingHTTPServer:
    """A server in a thread."""
    server = ThreadingHTTPServer(address, type("Bound", (handler,), {"cloud": cloud}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    main()
