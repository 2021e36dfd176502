"""What the instances of a cluster have cost, as an estimate: from their launches to the end of the teardown."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DaskClassifyError
from . import prices
from .aws import Aws
from .placement import Placement
from .spec import ClusterSpec


@dataclass(frozen=True)
class Launched:
    """An instance that was launched: its name in the cluster, its type, its market, and when (seconds since 1970)."""

    name: str
    type: str
    market: str
    at: float


def bill(aws: Aws, spec: ClusterSpec, placement: Placement, launched: Mapping[str, Launched]) -> dict[str, Any]:
    """Return the instances by id, their seconds, and dollars with their source; None for dollars without a price."""
    now = time.time()
    instances = [
        {"id": id, "name": one.name, "type": one.type, "market": one.market, "seconds": round(now - one.at, 1)}
        for id, one in launched.items()
    ]
    dollars, sources = 0.0, {}
    for instance in instances:
        price = _price(aws, spec, placement, instance)
        cost = price.cost(instance["seconds"])
        dollars = None if cost is None or dollars is None else dollars + cost
        sources[price.source] = None
    return {
        "instances": instances,
        "instance_seconds": round(sum(instance["seconds"] for instance in instances), 1),
        "dollars": dollars,
        "price_source": ", ".join(sources),
    }


def _price(aws: Aws, spec: ClusterSpec, placement: Placement, instance: Mapping[str, Any]) -> prices.Hourly:
    is_worker = instance["name"] != "scheduler"
    try:
        one = prices.Price(spec.price, "--price") if spec.price and is_worker else None
        one = one or prices.price(aws, instance["type"], instance["market"])
    except DaskClassifyError as error:
        return prices.Hourly(None, error.message)
    return prices.with_extras(spec, one, placement.disk_gib)
