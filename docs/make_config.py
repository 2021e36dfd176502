"""Write the file of defaults for Dask's configuration, and its schema, from the options of `run`: `make docs`."""

import re
import textwrap
from pathlib import Path

import click
import yaml

from dask_classifier.cli.app import app
from dask_classifier.cli.options import NOT_CONFIGURABLE

FOLDER = Path(__file__).parent.parent / "dask_classifier"
HEAD = """\
# Defaults of dask-classify for Dask's configuration. To change some for all your runs, copy this file to
# ~/.config/dask/ and edit the copy; null stands for an option that is not given. A single setting can also come from
# the environment: DASK_CLASSIFIER__WORKERS=4.
"""
SCHEMA_HEAD = "# What dask_classifier.yaml may contain, as a JSON schema.\n"
NOT_CONFIGURED = {"help", "as_json"} | NOT_CONFIGURABLE
S3_LINES = [
    "  # Settings of S3 by bucket, or of every bucket: '*'. For example:",
    "  # s3:",
    "  #   public-bucket: {anonymous: true}",
    "  #   partners-bucket: {requester-pays: true, endpoint-url: 'https://s3.example.com'}",
    "  #   my-bucket: {encryption: 'aws:kms', kms-key: 'arn:aws:kms:...'}",
    "  s3: null",
]
TEXT, YES_OR_NO = {"type": "string"}, {"type": "boolean"}
S3 = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"anonymous": YES_OR_NO, "requester-pays": YES_OR_NO},
}
S3["properties"] |= {"endpoint-url": TEXT, "encryption": TEXT, "kms-key": TEXT}
KINDS = {bool: "boolean", int: "integer", str: "string"}


def options():
    """The options of `run` that the configuration may have."""
    return [option for option in app.commands["run"].params if option.name not in NOT_CONFIGURED]


def default(option):
    """An option's default as YAML has it; of options for several values, an empty list."""
    if option.multiple:
        return []
    value = None if not isinstance(option.default, bool | int | str) else option.default
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def summary(option):
    """An option's help, without its default."""
    return re.sub(r"\s*\[[^]]*\]\s*$", "", " ".join((option.help or "").split())) or "See `dask-classify --help`."


def defaults_text():
    """The text of dask_classifier.yaml."""
    lines = [HEAD, "dask-classifier:"]
    for option in options():
        lines += textwrap.wrap(
            summary(option), 110, initial_indent="  # ", subsequent_indent="  # ", break_on_hyphens=False
        )
        lines.append(f"  {option.name.replace('_', '-')}: {yaml.safe_dump(default(option)).splitlines()[0]}")
    lines += S3_LINES
    return "\n".join(lines) + "\n"


def schema_text():
    """The text of dask_classifier-schema.yaml."""
    properties = {}
    for option in options():
        kinds = ["array", "string", "object", "null"] if option.multiple else ["string", "number", "array", "null"]
        kinds = ["boolean", "null"] if option.is_flag else kinds
        kinds = ["integer", "null"] if isinstance(option.type, click.IntRange) else kinds
        properties[option.name.replace("_", "-")] = {"type": kinds, "description": summary(option)}
    properties["s3"] = {"type": ["object", "null"], "description": "Settings by bucket.", "additionalProperties": S3}
    settings = {"type": "object", "additionalProperties": False, "properties": properties}
    schema = {"type": "object", "properties": {"dask-classifier": settings}}
    return SCHEMA_HEAD + yaml.safe_dump(schema, sort_keys=False, width=110)


if __name__ == "__main__":
    (FOLDER / "dask_classifier.yaml").write_text(defaults_text())
    (FOLDER / "dask_classifier-schema.yaml").write_text(schema_text())
