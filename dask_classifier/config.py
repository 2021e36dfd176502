"""The settings of dask-classify in Dask's configuration; dask_classifier.yaml has their names and defaults."""

import json
import os

import dask.config

from .errors import UsageError

S3_VARIABLE = "DASK_CLASSIFY_S3"  # the settings of S3 in classifier processes, which may be on other computers
_KINDS = {"anonymous": bool, "requester-pays": bool, "endpoint-url": str, "encryption": str, "kms-key": str}
EVERY_BUCKET = "*"


def configured() -> dict[str, object]:
    """Return the settings that are given, by option name with underscores.

    Files have `dask-classifier: {output: ...}`; the environment has DASK_CLASSIFIER__OUTPUT, which Dask reads as
    `classifier.output`, and which comes before the files. null and an empty list stand for a setting that is not given.
    """
    settings = {}
    for place in ("dask-classifier", "classifier"):
        found = dask.config.get(place, None) or {}
        if not isinstance(found, dict):
            raise UsageError(
                f"Dask's configuration has the text {found!r} for {place}, not settings.",
                "Write dask-classifier: {output: runs/today}, or DASK_CLASSIFIER__OUTPUT=runs/today.",
            )
        settings |= found
    return {name.replace("-", "_"): value for name, value in settings.items() if value not in (None, [])}


def s3_settings() -> dict[str, dict[str, object]]:
    """Return the settings of S3 by bucket; those of "*" are for every bucket.

    Raise UsageError for a setting that does not exist.
    """
    if text := os.environ.get(S3_VARIABLE):
        return json.loads(text)
    settings = configured().get("s3") or {}
    for bucket, values in settings.items() if isinstance(settings, dict) else [("s3", settings)]:
        for name, value in values.items() if isinstance(values, dict) else [(values, None)]:
            if not isinstance(value, _KINDS.get(str(name), ())):
                raise UsageError(
                    f"Dask's configuration has {name}: {value!r} for the bucket {bucket}.",
                    "Write, for example, dask-classifier: {s3: {my-bucket: {anonymous: true}}}. The settings are "
                    f"{', '.join(_KINDS)}.",
                )
        if "kms-key" in values and "encryption" not in values:
            raise UsageError(f"The bucket {bucket} has a kms-key without encryption.", "Add encryption: 'aws:kms'.")
    return settings


def of_bucket(bucket: str) -> dict[str, object]:
    """Return the settings of a bucket."""
    settings = s3_settings()
    return {**settings.get(EVERY_BUCKET, {}), **settings.get(bucket, {})}


def s3_environment() -> dict[str, str]:
    """Return the variable that gives classifier processes the settings of S3; {} if there are none."""
    return {S3_VARIABLE: json.dumps(settings)} if (settings := s3_settings()) else {}
