"""What an instance does when it boots: its user data, and the keys with which machines know each other."""

import datetime
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import dask.config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from ..errors import UsageError
from .spec import ClusterSpec

USER_DATA_LIMIT = 16_384  # bytes, of EC2
# host, account, region, name, tag, digest
ECR = re.compile(
    r"((\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?)/([^:@]+)(?::([^@]+))?(?:@(sha256:.+))?"
)

_SCRIPT = """#!/bin/sh
# {title}. Whatever happens, this machine ends itself after {minutes} minutes, or when its container ends.
shutdown -h +{minutes} || shutdown -h now
export DASK_INTERNAL_INHERIT_CONFIG={config}
command -v docker || dnf install -y docker || {{ apt-get update && apt-get install -y docker.io; }}
systemctl stop --no-block ecs
systemctl start docker
{login}docker run --rm --init --network host -e DASK_INTERNAL_INHERIT_CONFIG {environment} {image} {command}
echo "dask-classify: the container ended with $?"
shutdown -h now
"""

_LOGIN = """command -v aws || dnf install -y awscli-2 || apt-get install -y awscli || snap install aws-cli --classic
aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {host}
"""


@dataclass(frozen=True)
class Tls:
    """One certificate for all machines of a cluster and its client, with its key; PEM texts."""

    certificate: str
    key: str


def tls(days: int) -> Tls:
    """Made for one cluster: self-signed, P-256, valid for so many days.

    Dask's own `Security.temporary` is the same with RSA keys, which would fill the user data.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dask-classify")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Tls(certificate.public_bytes(pem).decode(), secret.decode())


def security(own: Tls, *, require_encryption: bool) -> Security:
    """For the client."""
    return Security(
        require_encryption=require_encryption,
        tls_ca_file=own.certificate,
        tls_client_cert=own.certificate,
        tls_client_key=own.key,
    )


def scheduler_command(port: int, dashboard_port: int, idle_timeout: float) -> list[str]:
    """Words that start the scheduler; after `idle_timeout` seconds without work it ends, and so does its machine."""
    module = ["python", "-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--port", str(port)]
    page = ["--dashboard-address", f":{dashboard_port}", "--preload", "dask_classifier.dashboard.scheduler_plugin"]
    return [*module, *page, "--idle-timeout", f"{idle_timeout:.0f}s"]


def worker_command(scheduler: str, name: str, spec: ClusterSpec) -> list[str]:
    """Words that start a worker, with one thread for each classifier process.

    It waits for a scheduler that still boots, and ends when it has lost it. Dask holds no rows: no memory limit.
    """
    words = ["python", "-m", "distributed.cli.dask_worker", scheduler, "--name", name, "--protocol", "tls"]
    processes = str(spec.processes_per_worker or "$(nproc)")
    limit = f"{spec.bring_up_limit + 60:.0f}"
    return [*words, "--nthreads", processes, "--memory-limit", "0", "--no-dashboard", "--death-timeout", limit]


def config(own: Tls, role: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Dask's configuration for a scheduler or worker: ours alone, nothing of the user's."""
    flat = {
        "distributed.comm.default-scheme": "tls",
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": own.certificate,
        f"distributed.comm.tls.{role}.cert": own.certificate,
        f"distributed.comm.tls.{role}.key": own.key,
    } | dict(settings)
    nested: dict = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        place = nested
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def user_data(
    *,
    title: str,
    minutes: int,
    image: str,
    command: list[str],
    config: dict,
    environment: Mapping[str, str],
    region: str,
) -> str:
    """The script that cloud-init runs as root at the first boot. Raises UsageError where EC2 would refuse it.

    `command` is words; "$(nproc)" is the one word that the machine's shell expands.
    """
    private = ECR.fullmatch(image)
    text = _SCRIPT.format(
        title=title,
        minutes=minutes,
        config=shlex.quote(dask.config.serialize(config)),
        login=_LOGIN.format(host=private[1], region=private[3]) if private else "",
        environment=" ".join(
            f"-e {shlex.quote(f'{name}={value}')}"
            for name, value in {"AWS_DEFAULT_REGION": region, **environment}.items()
        ),
        image=shlex.quote(image),
        command=" ".join('"$(nproc)"' if word == "$(nproc)" else shlex.quote(word) for word in command),
    )
    if len(text.encode()) > USER_DATA_LIMIT:
        raise UsageError(
            f"The user data has {len(text.encode()):,} bytes; EC2 allows {USER_DATA_LIMIT:,}.",
            "Give a shorter --image.",
        )
    return text
