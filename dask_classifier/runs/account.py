"""The account of a finished run in words: digests, versions, instances, cost, and what had been predicted."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..units import format_dollars, format_seconds

INSTANCES = "dask_classifier.instances"  # the logger of instances that are launched, and that have ended
_SHOWN, _IDS = 12, 2  # digits of a digest; ids of instances of a type


def account_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return labelled lines; of manifests of earlier versions, fewer."""
    words = {}
    if "source" in manifest and "result" in manifest:
        source, result = manifest["source"]["sha256"], manifest["result"]["sha256"]
        words["digests"] = f"source {source[:_SHOWN]}, classifier {_classifier(manifest)}, parts {result[:_SHOWN]}"
    words["versions"] = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    machines = manifest.get("machines") or {}
    words |= _instances(machines)
    if seconds := machines.get("instance_seconds"):
        words["instance time"] = format_seconds(seconds)
    words |= _cost(manifest, machines)
    if (predicted := manifest.get("prediction")) and not manifest.get("resumed") and not manifest.get("partial"):
        words["predicted"] = _prediction(predicted, manifest)
    return words


def _instances(machines: Mapping[str, Any]) -> dict[str, str]:
    """Return the instances by type, with some of their ids, and the image that they ran."""
    ids: dict[str, list[str]] = defaultdict(list)
    for one in machines.get("instances", ()):
        ids[one["type"]].append(one["id"])
    if not ids:
        return {}
    kinds = [f"{len(some)} {kind} ({_named(some)})" for kind, some in ids.items()]
    return {"launched": ", ".join(kinds), "image": machines["image"]}


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _IDS} more" if len(ids) > _IDS else ""
    return ", ".join(ids[:_IDS]) + more


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
    return {"cost": f"about ${format_dollars(dollars)}{_per_million(dollars, rows)}; an estimate from {source}"}


def _per_million(dollars: float, rows: int) -> str:
    return f", ${format_dollars(1e6 * dollars / rows)} per million rows" if rows else ""


def _prediction(predicted: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    seconds, dollars = manifest["seconds"], predicted.get("dollars")
    low, high = predicted["seconds"]["low"], predicted["seconds"]["high"]
    verdict = "within" if low <= seconds <= high else "outside"
    cost = f", ${format_dollars(dollars)}{_per_million(dollars, manifest['rows_in'])}" if dollars else ""
    return (
        f"{format_seconds(low)} to {format_seconds(high)}{cost}; the run took {format_seconds(seconds)}, {verdict} that"
    )
