"""What only S3 can do: conditional writes, and objects that are assembled from pieces (multipart uploads)."""

import contextlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from .config import of_bucket
from .storage import code_of, explaining, filesystem_of


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was neither completed nor aborted. Its pieces are stored, and cost money.

    `name` is relative to the folder that was listed, or "" for an upload to that URL itself.
    """

    url: str
    name: str
    id: str
    began: float  # seconds since 1970, by the store's clock


def is_s3(url: str) -> bool:
    """Return whether a URL is one of S3, or of a store like it."""
    return hasattr(filesystem_of(url)[0], "call_s3")


def write_if(url: str, data: bytes, version: str | None) -> str | None:
    """Write an object in S3 if what is there has this ETag or, for None, if there is nothing.

    Returns its new ETag, or None if something else is there, perhaps because this very request was sent twice.
    """
    filesystem, path = filesystem_of(url)
    bucket, key, _ = filesystem.split_path(path)
    condition = {"IfMatch": f'"{version}"'} if version else {"IfNoneMatch": "*"}
    with explaining("write", url):
        try:
            return filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)["ETag"].strip('"')
        except OSError as error:
            if code_of(error) in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404"}:
                return None
            if code_of(error) != "NotImplemented":
                raise
        # a store without this condition, such as OpenStack Swift's: another command may write between these requests
        there = version_and_age(url)
        if (there and there[0]) != version:
            return None
        return filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data)["ETag"].strip('"')


def delete_if(url: str, version: str) -> None:
    """Delete an object in S3 if it has this ETag. Stores that do not know the condition delete it in any case."""
    filesystem, path = filesystem_of(url)
    bucket, key, _ = filesystem.split_path(path)
    with explaining("delete", url):
        try:
            filesystem.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=f'"{version}"')
        except OSError as error:
            if code_of(error) not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404"}:
                raise


def version_and_age(url: str) -> tuple[str, float] | None:
    """Return the ETag of an object in S3, and its age in seconds by the clock of S3; None if there is none."""
    filesystem, path = filesystem_of(url)
    bucket, key, _ = filesystem.split_path(path)
    with explaining("read", url):
        try:
            answer = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return answer["ETag"].strip('"'), (now - answer["LastModified"]).total_seconds()


def unfinished_uploads(url: str) -> list[Upload]:
    """Return the uploads to `url`, or below it, that are neither complete nor aborted; [] for stores other than S3."""
    filesystem, path = filesystem_of(url)
    if not is_s3(url):
        return []
    bucket, key, _ = filesystem.split_path(path)
    uploads, start = [], {}
    with explaining("list uploads to", url):
        while start is not None:
            page = filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key, **start)
            uploads += page.get("Uploads", [])
            markers = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
            start = {name: value for name, value in markers.items() if value} if page.get("IsTruncated") else None
    names = [(upload["Key"].removeprefix(key), upload) for upload in uploads]
    return [
        Upload(f"s3://{bucket}/{upload['Key']}", name.lstrip("/"), upload["UploadId"], upload["Initiated"].timestamp())
        for name, upload in names
        if not name or name.startswith("/") or not key or key.endswith("/")
    ]


def abort(upload: Upload) -> None:
    """Abort an upload, which deletes its pieces, if it still exists."""
    filesystem, path = filesystem_of(upload.url)
    bucket, key, _ = filesystem.split_path(path)
    with explaining("abort the upload to", upload.url), contextlib.suppress(FileNotFoundError):
        filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id)


def days_of_unfinished_uploads(url: str) -> int | None:
    """Return after how many days a lifecycle rule of the bucket aborts uploads there; None if no rule does."""
    filesystem, _ = filesystem_of(url)
    bucket, key = _bucket_and_key(url)
    with explaining("read the lifecycle rules of", url):
        try:
            rules = filesystem.call_s3("get_bucket_lifecycle_configuration", Bucket=bucket)["Rules"]
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise
            return None
    days = [
        rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        for rule in rules
        if rule["Status"] == "Enabled" and "AbortIncompleteMultipartUpload" in rule and key.startswith(_prefix(rule))
    ]
    return min(days, default=None)


def _prefix(rule: dict) -> str:
    return rule.get("Prefix") or rule.get("Filter", {}).get("Prefix", "")


# --- objects that are assembled from pieces --------------------------------------------------------------------

LEAST_PIECE_BYTES = 5 * 2**20  # of each piece but the last
MOST_PIECES = 10_000


def are_in_one_store(one: str, other: str) -> bool:
    """Return whether S3 can copy from one URL to the other: both are in S3, at the same endpoint."""
    if not (is_s3(one) and is_s3(other)):
        return False
    first, second = (of_bucket(_bucket_and_key(url)[0]) for url in (one, other))
    return first.get("endpoint-url") == second.get("endpoint-url")


def begin_upload(url: str) -> str:
    """Begin to assemble an object, and return the upload's id. Nothing is visible before `complete`."""
    return _call("create_multipart_upload", "write", url)["UploadId"]


def copy_piece(url: str, upload: str, number: int, source: str) -> str:
    """Copy an object of S3 as a piece, numbered from 1, within S3; return the piece's ETag."""
    bucket, key = _bucket_and_key(source)
    copied = _call(
        "upload_part_copy", "write", url, UploadId=upload, PartNumber=number, CopySource={"Bucket": bucket, "Key": key}
    )
    return copied["CopyPartResult"]["ETag"]


def upload_piece(url: str, upload: str, number: int, data: bytes) -> str:
    """Upload a piece, numbered from 1; return its ETag."""
    return _call("upload_part", "write", url, UploadId=upload, PartNumber=number, Body=data)["ETag"]


def complete(url: str, upload: str, tags: list[str]) -> None:
    """Make the object of all pieces, given by their ETags in order, visible."""
    pieces = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
    _call("complete_multipart_upload", "write", url, UploadId=upload, MultipartUpload={"Parts": pieces})


def _call(operation: str, action: str, url: str, **options: object) -> dict:
    filesystem, _ = filesystem_of(url)
    bucket, key = _bucket_and_key(url)
    with explaining(action, url):
        return filesystem.call_s3(operation, Bucket=bucket, Key=key, **options)


def _bucket_and_key(url: str) -> tuple[str, str]:
    filesystem, path = filesystem_of(url)
    bucket, key, _ = filesystem.split_path(path)
    return bucket, key
