"""Speaking to AWS: clients, and what its errors mean in a sentence with a hint."""

import contextlib
import difflib
import threading
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSOError,
)

from ..errors import ClusterError, UsageError

_BUSY = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled", "SlowDown"}
_RETRY = {"mode": "standard", "total_max_attempts": 8}
_NO_CREDENTIALS = "Run `aws configure` or `aws sso login`, or set AWS_PROFILE; then `dask-classify doctor`."
_POLICY = "`dask-classify doctor --policy` prints what must be allowed."
_KMS = "The account encrypts disks with a key of its own: the caller, and EC2, must be allowed to use it."

# Code of AWS, or its beginning, to a hint.
_HINTS = {
    "UnauthorizedOperation": _POLICY,
    "AccessDenied": _POLICY,
    "AuthFailure.ServiceLinkedRole": f"Spot instances need a service-linked role, once for an account. {_POLICY}",
    "AuthFailure": _NO_CREDENTIALS,
    "InvalidClientTokenId": _NO_CREDENTIALS,
    "UnrecognizedClient": _NO_CREDENTIALS,
    "SignatureDoesNotMatch": "The secret key is wrong, or this machine's clock is.",
    "RequestExpired": "Is this machine's clock right, and are the credentials current?",
    "ExpiredToken": _NO_CREDENTIALS,
    "OptInRequired": "Enable the region, or EC2, in your account.",
    "InvalidInstanceType": "Is the type spelled right, and offered in this region? Give another --instance-type.",
    "InvalidAMIID": "Is the AMI of this region? Leave --ami out to have Amazon's.",
    "InvalidSubnetID": "Is the subnet of this region? See --subnet.",
    "InvalidGroup": "Is the security group of this region and VPC? See --security-group.",
    "InvalidKeyPair": "Is the key pair of this region? See --key-name.",
    "InvalidParameterValue": "`dask-classify doctor` looks at each option.",
    "Unsupported": "Give another --instance-type, or another --subnet.",
    "UnfulfillableCapacity": "EC2 has run out of these: give more types (--instance-type a,b,c), or leave --spot out.",
    "InvalidKMSKey": _KMS,
    "Client.InternalError": _KMS,  # that is how EC2 puts it when the disk's key may not be used
    "VolumeLimitExceeded": "Ask AWS for a higher quota for gp3 volumes, or delete volumes that nobody needs.",
    "MaxConfigLimitExceededException": "Ask AWS for a higher quota, or ask for fewer --workers.",
    "Insufficient": "EC2 has run out of these: give more types (--instance-type a,b,c), or another --region.",
    "VcpuLimitExceeded": "Ask AWS for a higher quota ('Running On-Demand Standard instances'), or for fewer --workers.",
    "InstanceLimitExceeded": "Ask AWS for a higher quota, or ask for fewer --workers.",
    "MaxSpotInstanceCountExceeded": "Ask AWS for a higher quota for spot instances, or leave --spot out.",
}


class Aws:
    """One region with the caller's credentials. Clients are made when needed, and may be used by any thread."""

    def __init__(self, region: str | None = None):
        """Raises UsageError where no region is known, or none of that name."""
        self._session = botocore.session.get_session()
        self._lock, self._clients = threading.Lock(), {}
        try:
            found = region or self._session.get_config_variable("region")
            self._session.get_scoped_config()
        except BotoCoreError as error:
            raise UsageError(
                f"AWS's configuration is wrong: {error}.", "See AWS_PROFILE, and ~/.aws/config."
            ) from error
        if not found:
            raise UsageError("No AWS region is known.", "Give --region, or set AWS_DEFAULT_REGION.")
        self.region: str = found
        known = [name for part in self._session.get_available_partitions() for name in self._regions(part)]
        if self.region not in known:
            near = difflib.get_close_matches(self.region, known, 1) or ["us-east-1"]
            raise UsageError(f"{self.region!r} is no region of AWS.", f"Did you mean --region {near[0]}?")

    def _regions(self, partition: str) -> list[str]:
        return self._session.get_available_regions("ec2", partition)

    def client(self, service: str, **config: Any) -> Any:
        """A client of botocore, such as "ec2"."""
        key = (service, repr(sorted(config.items())))
        with self._lock, explained(f"AWS {service} cannot be asked"):
            if key not in self._clients:
                settings = Config(**{"retries": _RETRY, "connect_timeout": 10, "read_timeout": 30} | config)
                self._clients[key] = self._session.create_client(service, region_name=self.region, config=settings)
            return self._clients[key]

    @property
    def ec2(self) -> Any:
        """The client for EC2."""
        return self.client("ec2")

    def credentials(self) -> Any:
        """The caller's: access_key, secret_key, token (None for a user's own key). Raises ClusterError."""
        with explained("There are no credentials for AWS"):
            found = self._session.get_credentials()
            if not found:
                raise NoCredentialsError
            return found.get_frozen_credentials()

    def temporary_credentials(self, seconds: float) -> dict[str, str]:
        """Environment variables with credentials that expire: the caller's session, or one made for so long.

        AWS gives a user's session 15 minutes to 36 hours. Raises ClusterError.
        """
        found = self.credentials()
        key, secret, token = found.access_key, found.secret_key, found.token
        if not token:
            with explained("Temporary credentials for the machines cannot be had"):
                duration = int(min(max(seconds, 900), 129_600))
                made = self.client("sts").get_session_token(DurationSeconds=duration)["Credentials"]
                key, secret, token = made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}


def code_of(error: Exception) -> str:
    """AWS's code of an error, or ""."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def is_passing(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    if not isinstance(error, ClientError):
        return isinstance(error, ConnectionError | HTTPClientError)
    return code_of(error) in {"InvalidGroup.NotFound", *_BUSY} or _is_aws_own_fault(error)


def is_unanswered(error: Exception) -> bool:
    """Whether AWS may have done what was asked of it all the same."""
    if isinstance(error, ClientError):
        return code_of(error) not in _BUSY and _is_aws_own_fault(error)
    never_sent = isinstance(error, EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError)
    return isinstance(error, ConnectionError | HTTPClientError) and not never_sent


def _is_aws_own_fault(error: ClientError) -> bool:
    """HTTP's 5xx, but for the lack of capacity, which EC2 reports like that."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 and not code_of(error).startswith(("Insufficient", "UnfulfillableCapacity"))


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn AWS's errors into ClusterError: `what` says what could not be done, without a full stop."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, SSOError) as error:
        raise ClusterError(f"{what}: {_sentence(str(error))}", _NO_CREDENTIALS) from error
    except NoRegionError as error:
        raise UsageError("No AWS region is known.", "Give --region, or set AWS_DEFAULT_REGION.") from error
    except EndpointConnectionError as error:
        raise ClusterError(
            f"{what}: {_sentence(str(error))}", "Is the region right, and is AWS reachable from here?"
        ) from error
    except ClientError as error:
        raise ClusterError(*explain(what, error)) from error
    except BotoCoreError as error:
        raise ClusterError(f"{what}: {_sentence(str(error))}", "`dask-classify doctor` may know more.") from error


def explain(what: str, error: ClientError) -> tuple[str, str]:
    """Message and hint of AWS's answer."""
    code = code_of(error)
    hint = hint_for(code)
    if "instance profile" in str(error).lower():
        hint = "Does the instance profile exist? `dask-classify doctor --policy` shows how one is made."
    return f"{what}: {_sentence(error.response['Error'].get('Message') or code)} ({code})", hint


def hint_for(code: str) -> str:
    """What to do about a code of AWS's, also of an instance's state (Client..., Server...); or ""."""
    bare = code.removeprefix("Client.").removeprefix("Server.")
    return next((hint for begin, hint in _HINTS.items() if code.startswith(begin) or bare.startswith(begin)), "")


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
