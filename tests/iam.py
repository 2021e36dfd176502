"""For tests of policies: what AWS was asked for, as IAM sees it, and a small evaluator of policies."""

import fnmatch
import http.client
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TAG = "dask-classify:cluster"
PROFILE_KEY = "ASIAPLAYEDPROFILE"  # of the rehearsal's instance profiles
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length"}
_MADE = {"RunInstances": ("instance", "volume", "network-interface"), "CreateSecurityGroup": ("security-group",)}


@dataclass(frozen=True)
class Need:
    """One right that a request takes: an action on a resource, with what conditions may look at."""

    action: str
    resource: str = "*"
    context: dict = field(default_factory=dict, hash=False)
    machine: bool = False  # asked with the credentials of an instance profile


def allows(policy: dict, need: Need) -> bool:
    """Whether one statement of the policy allows it; nothing is denied in ours."""
    return any(_matches(statement, need) for statement in policy["Statement"])


def _matches(statement: dict, need: Need) -> bool:
    assert statement["Effect"] == "Allow"
    actions = [each.lower() for each in _list(statement["Action"])]
    return (
        any(fnmatch.fnmatchcase(need.action.lower(), each) for each in actions)
        and any(fnmatch.fnmatchcase(need.resource, each) for each in _list(statement["Resource"]))
        and all(
            _holds(kind, *pair, need)
            for kind, pairs in statement.get("Condition", {}).items()
            for pair in pairs.items()
        )
    )


def _holds(kind: str, key: str, wanted, need: Need) -> bool:
    if kind == "Null":
        return (key not in need.context) == (wanted == "true")
    assert kind == "StringEquals", kind
    return need.context.get(key) in _list(wanted)


def _list(value) -> list[str]:
    return value if isinstance(value, list) else [value]


class Recorder:
    """A proxy before the rehearsal's AWS that writes down the rights that each request takes."""

    def __init__(self, rehearsal):
        self.rehearsal, self.needs, self.calls = rehearsal, [], []
        self._target = urllib.parse.urlsplit(rehearsal.api).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"recorder": self}))
        self.url = "http://{}:{}".format(*self._server.server_address)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def forward(self, method, path, headers, body):
        there = http.client.HTTPConnection(self._target, timeout=60)
        there.request(method, path, body, headers)
        answer = there.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def record(self, method, path, headers, body):
        scope = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", headers.get("Authorization", ""))
        if not scope:
            return  # not signed: nobody asks IAM about it
        machine, service = scope[1] == PROFILE_KEY, scope[2]
        if service == "s3":
            found = list(_s3(method, path, headers, body))
        elif "X-Amz-Target" in headers:
            found = [_json(service, headers["X-Amz-Target"].rpartition(".")[2], body)]
        else:
            found = list(self._query(service, dict(urllib.parse.parse_qsl(body.decode()))))
        self.needs += [Need(each.action, each.resource, each.context, machine) for each in found]
        self.calls += [found[0].action]

    def _query(self, service, told):
        call = told["Action"]
        if service != "ec2":
            yield Need(f"{service}:{call}")
        elif call in _MADE:
            yield from self._made(call, told)
        elif names := [value for key, value in told.items() if re.fullmatch(r"(InstanceId|GroupId)(\.\d+)?", key)]:
            if call.startswith("Describe"):
                names = ["*"]
            yield from (self._on(f"ec2:{call}", name) for name in names)
        else:
            yield Need(f"ec2:{call}")

    def _on(self, action, name) -> Need:
        """An action on something that is there, with its tags."""
        if name == "*":
            return Need(action)
        told = self.rehearsal.client("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": [name]}])["Tags"]
        kind = "instance" if name.startswith("i-") else "security-group"
        context = {f"aws:ResourceTag/{each['Key']}": each["Value"] for each in told}
        return Need(action, _arn(kind, name), context)

    def _made(self, call, told):
        """A launch, or a new group: each thing that is made, each that is used, each tag, and what is passed on."""
        for kind in _MADE[call]:
            tags = _tags_of(told, kind)
            yield Need(f"ec2:{call}", _arn(kind, "*"), {f"aws:RequestTag/{key}": "x" for key in tags})
            if tags:
                yield Need("ec2:CreateTags", _arn(kind, "*"), {"ec2:CreateAction": call})
        used = {"ImageId": "image", "KeyName": "key-pair", "VpcId": "vpc"}
        used |= {key: "subnet" for key in told if key.endswith("SubnetId")}
        used |= {key: "security-group" for key in told if "SecurityGroupId" in key}
        yield from (Need(f"ec2:{call}", _arn(kind, told[key])) for key, kind in used.items() if key in told)
        if any("InstanceMarketOptions" in key for key in told):
            yield Need(f"ec2:{call}", _arn("spot-instances-request", "*"))
        if profile := told.get("IamInstanceProfile.Name"):
            passed = {"iam:PassedToService": "ec2.amazonaws.com"}
            yield Need("iam:PassRole", f"arn:aws:iam::ACCOUNT:role/ROLE-OF-{profile}", passed)


def _tags_of(told, kind):
    """Names of the tags that a request gives to a kind of thing."""
    for number in range(1, 9):
        if told.get(f"TagSpecification.{number}.ResourceType") == kind:
            return {
                value for key, value in told.items() if re.match(rf"TagSpecification\.{number}\.Tag\.\d+\.Key", key)
            }
    return set()


def _arn(kind, name):
    return f"arn:aws:ec2:us-east-1:{'' if kind == 'image' else '123456789012'}:{kind}/{name}"


def _json(service, call, body):
    if call == "GetParameter":
        return Need("ssm:GetParameter", f"arn:aws:ssm:us-east-1::parameter{json.loads(body)['Name']}")
    return Need(f"{service}:{call}")


def _s3(method, path, headers, body):
    """By the table of AWS's "Actions, resources, and condition keys for Amazon S3"."""
    parts = urllib.parse.urlsplit(path)
    asked = urllib.parse.parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = urllib.parse.unquote(parts.path).lstrip("/").partition("/")
    there = f"arn:aws:s3:::{bucket}"
    if not key:
        if "delete" in asked:
            for name in re.findall(rb"<Key>(.*?)</Key>", body):
                yield Need("s3:DeleteObject", f"{there}/{name.decode()}")
        else:
            yield Need("s3:GetBucketLocation" if "location" in asked else "s3:ListBucket", there)
        return
    if source := headers.get("x-amz-copy-source"):
        yield Need("s3:GetObject", f"arn:aws:s3:::{urllib.parse.unquote(source).lstrip('/')}")
    dropped = "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject"
    writes = {"PUT": "s3:PutObject", "POST": "s3:PutObject", "DELETE": dropped}
    yield Need(writes.get(method, "s3:GetObject"), f"{there}/{key}")


class _Handler(BaseHTTPRequestHandler):
    recorder: Recorder
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _pass(self):
        body = self._body()
        self.recorder.record(self.command, self.path, self.headers, body)
        dropped = _HOP_BY_HOP | {"expect"}
        headers = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
        status, answered, data = self.recorder.forward(self.command, self.path, headers, body)
        self.send_response_only(status)
        length = next((value for key, value in answered if key.lower() == "content-length"), str(len(data)))
        for key, value in answered:
            if key.lower() not in _HOP_BY_HOP:
                self.send_header(key, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass
