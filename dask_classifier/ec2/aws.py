"""Clients for AWS in one region, and AWS errors as one sentence with a hint."""

import contextlib
import difflib
import threading
import time
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

from ..config import of_bucket
from ..errors import ClusterError, UsageError

_LONGEST_SESSION = 129_600  # seconds, of GetSessionToken for a user
_BUSY = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled", "SlowDown"}
_RETRY = {"mode": "standard", "total_max_attempts": 8}
_NO_CREDENTIALS = "Run `aws configure` or `aws sso login`, or set AWS_PROFILE; then `dask-classify doctor`."
_NOT_ENABLED = "If AWS accepts them in other regions, enable this region in your account."
_POLICY = "`dask-classify doctor --policy` prints the permissions that are needed."
_KMS = "The account encrypts volumes with a customer managed key: allow the caller and EC2 to use that key."

# Error codes of AWS, or their prefixes, and the hint for each.
_HINTS = {
    "UnauthorizedOperation": _POLICY,
    "AccessDenied": _POLICY,
    "AuthFailure.ServiceLinkedRole": f"Spot instances need a service-linked role, created once per account. {_POLICY}",
    "AuthFailure": f"{_NO_CREDENTIALS} {_NOT_ENABLED}",
    "InvalidClientTokenId": f"{_NO_CREDENTIALS} {_NOT_ENABLED}",
    "UnrecognizedClient": _NO_CREDENTIALS,
    "SignatureDoesNotMatch": "Check the secret key, and this computer's clock.",
    "RequestExpired": "Check this computer's clock, and that the credentials have not expired.",
    "ExpiredToken": _NO_CREDENTIALS,
    "OptInRequired": "Enable the region, or EC2, in your account.",
    "InvalidInstanceType": "Check the spelling, and that this region offers the type, or give another --instance-type.",
    "InvalidAMIID": "Check that the AMI belongs to this region, or leave --ami out to use Amazon's.",
    "InvalidSubnetID": "Check that the subnet belongs to this region: --subnet.",
    "InvalidGroup": "Check that the security group belongs to this region and VPC: --security-group.",
    "InvalidKeyPair": "Check that the key pair belongs to this region: --key-name.",
    "InvalidParameterValue": "Run `dask-classify doctor`, which checks each option.",
    "Unsupported": "Give another --instance-type, or another --subnet.",
    "UnfulfillableCapacity": "EC2 has no capacity left: give more types (--instance-type a,b,c), or leave --spot out.",
    "InvalidKMSKey": _KMS,
    "Client.InternalError": _KMS,  # what EC2 reports if it may not use the volume's key
    "VolumeLimitExceeded": "Ask AWS for a higher quota for gp3 volumes, or delete unused volumes.",
    "MaxConfigLimitExceededException": "Ask AWS for a higher quota, or use fewer --workers.",
    "Insufficient": "EC2 has no capacity left: give more types (--instance-type a,b,c), or another --region.",
    "VcpuLimitExceeded": "Ask AWS for a higher quota ('Running On-Demand Standard instances'), or use fewer --workers.",
    "InstanceLimitExceeded": "Ask AWS for a higher quota, or use fewer --workers.",
    "MaxSpotInstanceCountExceeded": "Ask AWS for a higher quota for spot instances, or leave --spot out.",
}


class Aws:
    """One region with the caller's credentials. Clients are created on first use and can be shared between threads."""

    def __init__(self, region: str | None = None):
        """Raise UsageError if no region is configured, or if AWS has no region of this name."""
        self._session = botocore.session.get_session()
        self._lock, self._clients = threading.Lock(), {}
        try:
            region = region or self._session.get_config_variable("region")
            self._session.get_scoped_config()
        except BotoCoreError as error:
            raise UsageError(
                f"Cannot read the AWS configuration: {error}.", "Check AWS_PROFILE and ~/.aws/config."
            ) from error
        if not region:
            raise UsageError("No AWS region is configured.", "Use --region, or set AWS_DEFAULT_REGION.")
        self.region: str = region
        known = [name for part in self._session.get_available_partitions() for name in self._regions(part)]
        if self.region not in known:
            near = difflib.get_close_matches(self.region, known, 1) or ["us-east-1"]
            raise UsageError(f"{self.region!r} is not an AWS region.", f"Did you mean --region {near[0]}?")

    def _regions(self, partition: str) -> list[str]:
        return self._session.get_available_regions("ec2", partition)

    def client(self, service: str, **config: Any) -> Any:
        """Return a botocore client, such as "ec2"."""
        key = (service, repr(sorted(config.items())))
        with self._lock, explained(f"Cannot create a client for AWS {service}"):
            if key not in self._clients:
                settings = Config(**{"retries": _RETRY, "connect_timeout": 10, "read_timeout": 30} | config)
                self._clients[key] = self._session.create_client(service, region_name=self.region, config=settings)
            return self._clients[key]

    def s3(self, bucket: str) -> Any:
        """Return a botocore client that signs links to a bucket as the bucket's region wants it."""
        with self._lock:
            if ("s3", bucket) not in self._clients:
                config = Config(signature_version="s3v4", retries=_RETRY, connect_timeout=10, read_timeout=30)
                own = {"endpoint_url": of_bucket(bucket).get("endpoint-url"), "config": config}
                client = self._session.create_client("s3", region_name=self.region, **own)
                if (region := _region_of(client, bucket)) not in (None, self.region):
                    client = self._session.create_client("s3", region_name=region, **own)
                self._clients["s3", bucket] = client
            return self._clients["s3", bucket]

    @property
    def ec2(self) -> Any:
        """The botocore client for EC2."""
        return self.client("ec2")

    def credentials(self) -> Any:
        """Return the caller's access_key, secret_key and token, which is None for a user's own key.

        Raises ClusterError.
        """
        with explained("Cannot load AWS credentials"):
            credentials = self._session.get_credentials()
            if not credentials:
                raise NoCredentialsError
            return credentials.get_frozen_credentials()

    def credentials_end(self) -> float | None:
        """Return when what `temporary_credentials` returns now expires, in seconds since 1970; None if that is unknown.

        Raises ClusterError.
        """
        if not self.credentials().token:
            return time.time() + _LONGEST_SESSION
        expiry = getattr(self._session.get_credentials(), "_expiry_time", None)  # of a role or an SSO session
        return expiry and expiry.timestamp()

    def temporary_credentials(self, seconds: float) -> dict[str, str]:
        """Return environment variables with credentials that expire.

        If the caller uses a session, these are its credentials; otherwise, a new session is created for `seconds`,
        within the 15 minutes to 36 hours that AWS allows. Raises ClusterError.
        """
        credentials = self.credentials()
        key, secret, token = credentials.access_key, credentials.secret_key, credentials.token
        if not token:
            with explained("Cannot get temporary credentials for the instances"):
                duration = int(min(max(seconds, 900), _LONGEST_SESSION))
                session = self.client("sts").get_session_token(DurationSeconds=duration)["Credentials"]
                key, secret, token = session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}


def configured_region() -> str | None:
    """Return the region that is configured for AWS; None if none is, or AWS has none of its name."""
    with contextlib.suppress(UsageError):
        return Aws().region
    return None


def _region_of(client: Any, bucket: str) -> str | None:
    """Return the region that S3 names for a bucket; None if it names none, as stores like it do."""
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:  # which names it, too: of a bucket elsewhere, or of one that may not be listed
        answer = error.response
    return answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")


def code_of(error: Exception) -> str:
    """Return AWS's code for an error, or ""."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed if it is repeated."""
    if not isinstance(error, ClientError):
        return isinstance(error, ConnectionError | HTTPClientError)
    return code_of(error) in {"InvalidGroup.NotFound", *_BUSY} or _is_server_error(error)


def has_unknown_outcome(error: Exception) -> bool:
    """Return whether AWS may have carried out the request despite the error."""
    if isinstance(error, ClientError):
        return code_of(error) not in _BUSY and _is_server_error(error)
    never_sent = isinstance(error, EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError)
    return isinstance(error, ConnectionError | HTTPClientError) and not never_sent


def _is_server_error(error: ClientError) -> bool:
    """Return whether the status is 5xx, except for a lack of capacity, which EC2 also reports as 5xx."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 and not code_of(error).startswith(("Insufficient", "UnfulfillableCapacity"))


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise AWS errors as ClusterError. `what` is the beginning of the message: "Cannot list the subnets"."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, SSOError) as error:
        raise ClusterError(f"{what}: {_sentence(str(error))}", _NO_CREDENTIALS) from error
    except NoRegionError as error:
        raise UsageError("No AWS region is configured.", "Use --region, or set AWS_DEFAULT_REGION.") from error
    except EndpointConnectionError as error:
        raise ClusterError(
            f"{what}: {_sentence(str(error))}", "Check the region, and that AWS is reachable from this computer."
        ) from error
    except ClientError as error:
        raise ClusterError(*explain(what, error)) from error
    except BotoCoreError as error:
        raise ClusterError(
            f"{what}: {_sentence(str(error))}", "Run `dask-classify doctor` to look for the cause."
        ) from error
    except ValueError as error:  # botocore has no class of its own for this one
        if not str(error).startswith("Invalid endpoint"):
            raise
        raise ClusterError(f"{what}: {_sentence(str(error))}", "Check AWS_ENDPOINT_URL.") from error


def explain(what: str, error: ClientError) -> tuple[str, str]:
    """Return the message and the hint for an error returned by AWS."""
    code = code_of(error)
    hint = hint_for(code)
    if "instance profile" in str(error).lower():
        hint = "Check that the instance profile exists. `dask-classify doctor --policy` prints the policy for its role."
    return f"{what}: {_sentence(error.response['Error'].get('Message') or code)} ({code})", hint


def hint_for(code: str) -> str:
    """Return the hint for an error code, or for the code of an instance's state (Client..., Server...); or ""."""
    bare = code.removeprefix("Client.").removeprefix("Server.")
    return next((hint for prefix, hint in _HINTS.items() if code.startswith(prefix) or bare.startswith(prefix)), "")


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
