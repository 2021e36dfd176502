"""User data: the script that an instance runs when it boots, and the TLS key that it contains."""

import datetime
import importlib.resources
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

from ..engine.dask_settings import DASK_SETTINGS, PROFILED, SCHEDULER_PAGES
from ..engine.spot import ENVIRONMENT as SPOT_VARIABLE
from ..errors import UsageError
from .spec import ClusterSpec

_USER = "1000:1000"  # in a container of Python alone, whose own user is root
PORT, DASHBOARD_PORT = 8786, 8787  # of the scheduler
DEADLINE_PASSED, CONTAINER_EXITED = "the deadline has passed", "the container exited with code"  # on the console
# A line of boot.sh or of its container on an instance's console, as systemd writes it. Group: the line.
CONSOLE_LINE = re.compile(r"\[ *[\d.]+\] dask-classify\[\d+\]: (.*)")
USER_DATA_LIMIT = 16_384  # bytes, set by EC2
# Groups: host, account, region, repository, tag, digest.
ECR = re.compile(
    r"((\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?)/([^:@]+)(?::([^@]+))?(?:@(sha256:.+))?"
)
_LOST_WORKER_SETTINGS = {"distributed.scheduler.worker-ttl": "2 minutes"}  # for an instance that vanishes silently

_HEADER = """#cloud-boothook
#!/bin/sh
# {title}
image={image} registry={registry} region={region} launched={launched} deadline={deadline}
export DASK_INTERNAL_INHERIT_CONFIG={config}
container() {{
docker run --rm --init --network host --log-driver none {user}-e DASK_INTERNAL_INHERIT_CONFIG {environment} \\
{image} {command}
}}
"""


@dataclass(frozen=True)
class Tls:
    """The certificate that all instances of a cluster and its client share, and its key, as PEM texts."""

    certificate: str
    key: str


def tls(days: int) -> Tls:
    """Create a certificate and key for one cluster: self-signed, P-256, valid for `days` days.

    Dask's own `Security.temporary` uses RSA keys, which would take up a third of the user data.
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
        .not_valid_before(now - datetime.timedelta(days=1))  # for clocks that differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Tls(certificate.public_bytes(pem).decode(), secret.decode())


def security(keys: Tls, *, require_encryption: bool) -> Security:
    """Return the client's security settings."""
    return Security(
        require_encryption=require_encryption,
        tls_ca_file=keys.certificate,
        tls_client_cert=keys.certificate,
        tls_client_key=keys.key,
    )


def user_data(
    spec: ClusterSpec,
    keys: Tls,
    *,
    role: str,
    cluster: str,
    name: str,
    region: str,
    scheduler: str,
    launched: float,
    deadline: float,
    installation: list[str],
) -> str:
    """Return the user data of one instance, which starts a scheduler or a worker in a container.

    Parameters
    ----------
    role
        "scheduler" or "worker".
    cluster, name
        The cluster's id and the instance's name in it, such as "worker-3".
    scheduler
        The address to which a worker connects.
    launched, deadline
        When the instance is launched, and when it shuts itself down at the latest, in seconds since 1970.
    installation
        The words before the command, which install its environment; [] with an image.

    Raises
    ------
    UsageError
        If EC2 would refuse the script.
    """
    settings = DASK_SETTINGS | _LOST_WORKER_SETTINGS | (PROFILED if spec.profile else {})
    if role == "scheduler":
        idle_timeout = spec.deadline if spec.name else spec.idle_timeout  # a named cluster waits for its next run
        command = _scheduler_command(idle_timeout)
        settings = settings | SCHEDULER_PAGES
        del settings["distributed.worker.daemon"]  # user data is short: only the settings that the role reads
    else:
        command = _worker_command(scheduler, name, spec)
    return boot_script(
        title=f"dask-classify {cluster} {name}",
        launched=launched,
        deadline=deadline,
        image=spec.container_image,
        command=[*installation, *command],
        config=config(keys, role, settings),
        environment={SPOT_VARIABLE: "1"} if spec.spot else {},
        region=region,
        user="" if spec.image else _USER,
    )


def _scheduler_command(idle_timeout: float) -> list[str]:
    """Return the command that starts the scheduler, which exits after `idle_timeout` seconds without work."""
    module = ["python", "-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--port", str(PORT)]
    page = ["--dashboard-address", f":{DASHBOARD_PORT}", "--preload", "dask_classifier.dashboard.scheduler_plugin"]
    return [*module, *page, "--idle-timeout", f"{idle_timeout:.0f}s"]


def _worker_command(scheduler: str, name: str, spec: ClusterSpec) -> list[str]:
    """Return the command that starts a worker, with one thread for each classifier process.

    The worker waits for a scheduler that is still booting, and exits once it has lost the scheduler. It has no memory
    limit, because Dask itself holds no rows.
    """
    module = ["python", "-m", "distributed.cli.dask_worker", scheduler, "--name", name, "--protocol", "tls"]
    processes = str(spec.processes_per_worker or "$(nproc)")
    patience = ["--preload-nanny", "dask_classifier.ec2.joining", "--death-timeout", f"{spec.bring_up_limit + 60:.0f}"]
    return [*module, "--nthreads", processes, "--memory-limit", "0", "--no-dashboard", *patience]


def config(keys: Tls, role: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Return Dask's configuration for a scheduler or worker. It contains nothing from the user's configuration."""
    flat = {
        "distributed.comm.default-scheme": "tls",
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": keys.certificate,
        f"distributed.comm.tls.{role}.cert": keys.certificate,
        f"distributed.comm.tls.{role}.key": keys.key,
    } | dict(settings)
    nested: dict[str, object] = {}
    dask.config.set(flat, config=nested)
    return nested


def boot_script(
    *,
    title: str,
    launched: float,
    deadline: float,
    image: str,
    command: list[str],
    config: dict,
    environment: Mapping[str, str],
    region: str,
    user: str = "",
) -> str:
    """Return the script that cloud-init runs as root at each boot. Raises UsageError if EC2 would refuse it.

    All words of `command` are quoted, except for "$(nproc)", which the instance's shell expands. `user` is that of the
    container, which then works in /tmp; "" for the image's own.
    """
    ecr_image = ECR.fullmatch(image)
    header = _HEADER.format(
        title=title,
        image=shlex.quote(image),
        user=f"--user {user} --workdir /tmp -e HOME=/tmp " if user else "",
        registry=ecr_image[1] if ecr_image else "",
        region=ecr_image[3] if ecr_image else "",
        launched=round(launched),
        deadline=round(deadline),
        config=shlex.quote(dask.config.serialize(config)),
        environment=" ".join(
            f"-e {shlex.quote(f'{name}={value}')}"
            for name, value in {"AWS_DEFAULT_REGION": region, **environment}.items()
        ),
        command=" ".join('"$(nproc)"' if word == "$(nproc)" else shlex.quote(word) for word in command),
    )
    text = header + _body()
    if len(text.encode()) > USER_DATA_LIMIT:
        raise UsageError(
            f"The user data would take {len(text.encode()):,} bytes; EC2 allows {USER_DATA_LIMIT:,}.",
            "Give an --image with a shorter name or, without an image, a shorter --staging.",
        )
    return text


def _body() -> str:
    """Return boot.sh without its comments and indentation, because user data is short."""
    lines = importlib.resources.files(__package__).joinpath("boot.sh").read_text().splitlines()
    return "".join(f"{line.strip()}\n" for line in lines if line.strip() and not line.lstrip().startswith("#"))
