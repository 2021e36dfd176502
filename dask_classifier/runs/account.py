"""The account of a finished run in words: rows, digests, instances, cost, and what had been predicted."""

from collections.abc import Mapping
from typing import Any

from ..units import format_dollars, format_seconds

_SHOWN = 12  # digits of a digest


def account_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return labelled lines; of manifests of earlier versions, fewer."""
    words = {}
    if "source" in manifest and "result" in manifest:
        source, result = manifest["source"]["sha256"], manifest["result"]["sha256"]
        words["digests"] = f"source {source[:_SHOWN]}, classifier {_classifier(manifest)}, parts {result[:_SHOWN]}"
    machines = manifest.get("machines") or {}
    if seconds := machines.get("instance_seconds"):
        words["instance time"] = format_seconds(seconds)
    words |= _cost(manifest, machines)
    if (predicted := manifest.get("prediction")) and not manifest.get("resumed") and not manifest.get("partial"):
        words["predicted"] = _prediction(predicted, manifest["seconds"])
    return words


def _classifier(manifest: Mapping[str, Any]) -> str:
    return manifest["classifier"]["sha256"][:_SHOWN]


def _cost(manifest: Mapping[str, Any], machines: Mapping[str, Any]) -> dict[str, str]:
    if "dollars" not in machines:
        return {}
    dollars, source = machines["dollars"], machines["price_source"]
    if dollars is None:
        return {"cost": f"unknown: {source}"}
    resumed = set(manifest.get("resumed", ()))  # which an earlier attempt has paid for
    rows = sum(part["rows"] + part["bad_rows"] for part in manifest["parts"] if part["index"] not in resumed)
    per_million = f", ${format_dollars(1e6 * dollars / rows)} per million rows" if rows else ""
    return {"cost": f"about ${format_dollars(dollars)}{per_million}; an estimate from {source}"}


def _prediction(predicted: Mapping[str, Any], seconds: float) -> str:
    low, high = predicted["seconds"]["low"], predicted["seconds"]["high"]
    verdict = "within" if low <= seconds <= high else "outside"
    cost = f", ${format_dollars(predicted['dollars'])}" if predicted.get("dollars") else ""
    return (
        f"{format_seconds(low)} to {format_seconds(high)}{cost}; the run took {format_seconds(seconds)}, {verdict} that"
    )
