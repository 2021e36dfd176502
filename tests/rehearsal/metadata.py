"""169.254.169.254: the metadata service that each instance finds there, version 2 only."""

import contextlib
import json
import socket
from http.server import BaseHTTPRequestHandler


class Metadata(BaseHTTPRequestHandler):
    """Answers an instance, which it knows by its address, about itself."""

    cloud = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, body: str | bytes, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def instance(self):
        caller = self.client_address[0]
        return next((each for each in self.cloud.instances.values() if each.alive and each.private == caller), None)

    def do_PUT(self):
        instance = self.instance()
        if not instance or not self.path.endswith("/api/token"):
            return self.answer("", 400)
        hops = instance.moto.metadata_options.http_put_response_hop_limit
        self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)  # as EC2: it does not come further
        return self.answer(instance.token)

    def do_GET(self):
        instance = self.instance()
        if not instance or self.headers.get("X-aws-ec2-metadata-token") != instance.token:
            return self.answer("", 401)
        if instance.silent:
            return self.answer("", 503)
        _, _, path = self.path.lstrip("/").partition("/")  # behind the version
        found = self.find(instance, path)
        if found and "security-credentials/" in path and not path.endswith("/"):
            self.cloud.log("credentials", id=instance.id, agent=self.headers.get("User-Agent", ""))
        return self.answer("" if found is None else found, 404 if found is None else 200)

    def find(self, instance, path: str) -> str | bytes | None:
        kind, _, rest = path.partition("/")
        if kind == "meta-data":
            return instance.metadata(rest)
        if kind == "user-data":
            return instance.decode(instance.moto.user_data)
        document = {"instanceId": instance.id, "region": "us-east-1", "instanceType": instance.moto.instance_type}
        document |= {"accountId": "123456789012", "privateIp": instance.private}
        served = {
            "": "dynamic\nmeta-data\nuser-data",
            "dynamic": "instance-identity/",
            "dynamic/instance-identity": "document",  # cloud-init asks again for minutes if it is missing
            "dynamic/instance-identity/document": json.dumps(document),
        }
        return served.get(path.rstrip("/"))
