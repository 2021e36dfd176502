"""What the instances of a cluster have cost, as an estimate: from their launches to the end of the teardown."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DaskClassifyError
from . import prices
from .aws import Aws
from .spec import ClusterSpec


@dataclass(frozen=True)
class Launched:
    """An instance that was launched: its name in the cluster, its type, its market, and when (seconds since 1970)."""

    name: str
    type: str
    market: str
    at: float


class Prices:
    """The prices of a cluster's instances; each is asked for once, also if the answer is that there is none."""

    def __init__(self, aws: Aws, spec: ClusterSpec, disk_gib: int):
        self._aws, self._spec, self._disk_gib = aws, spec, disk_gib
        self._known: dict[tuple[bool, str, str], prices.Hourly] = {}

    def of(self, one: Launched) -> prices.Hourly:
        """Return the price of an instance with its volume and its public address."""
        is_worker = one.name != "scheduler"
        key = (is_worker, one.type, one.market)
        if key not in self._known:
            self._known[key] = self._ask(one, by_user=self._spec.price if is_worker else None)
        return self._known[key]

    def _ask(self, one: Launched, by_user: float | None) -> prices.Hourly:
        try:
            price = prices.Price(by_user, "--price") if by_user else prices.price(self._aws, one.type, one.market)
            if price.dollars is None and self._spec.price:
                price = prices.Price(self._spec.price, "--price")  # of a scheduler: in doubt, as much as a worker
        except DaskClassifyError as error:
            return prices.Hourly(None, error.message)
        return prices.with_extras(self._spec, price, self._disk_gib)


def cost(known: Prices, launched: Mapping[str, Launched]) -> tuple[float, float] | None:
    """Return what instances have cost until now, and what they cost per hour, in $; None without a price."""
    now, spent, rate = time.time(), 0.0, 0.0
    for one in launched.values():
        price = known.of(one)
        if price.dollars is None:
            return None
        spent, rate = spent + price.cost(now - one.at), rate + price.dollars
    return spent, rate


def bill(known: Prices, launched: Mapping[str, Launched]) -> dict[str, Any]:
    """Return the instances by id, their seconds, and dollars with their source; None for dollars without a price."""
    now, spent = time.time(), cost(known, launched)
    instances = [
        {"id": id, "name": one.name, "type": one.type, "market": one.market, "seconds": round(now - one.at, 1)}
        for id, one in launched.items()
    ]
    return {
        "instances": instances,
        "instance_seconds": round(sum(instance["seconds"] for instance in instances), 1),
        "dollars": spent and spent[0],
        "price_source": ", ".join(dict.fromkeys(known.of(one).source for one in launched.values())),
    }
