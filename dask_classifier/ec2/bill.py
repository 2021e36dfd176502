"""What the instances of a cluster have cost, as an estimate: from their launches to their ends."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from ..errors import DaskClassifyError
from ..runs.account import INSTANCES
from . import prices
from .aws import Aws
from .spec import ClusterSpec

_log = logging.getLogger(INSTANCES)
_ending = threading.Lock()  # two threads may notice an end
_ASK_AGAIN_SECONDS = 60.0  # for a price that AWS did not give


@dataclass(frozen=True)
class Launched:
    """An instance that was launched: its name in the cluster, type and market; times in seconds since 1970."""

    name: str
    type: str
    market: str
    at: float
    ended: float | None = None  # when that was noticed; None while it may still run

    def until(self, moment: float) -> Self:
        """Return an instance that ended now, or before."""
        return self if self.ended else replace(self, ended=moment)

    @property
    def seconds(self) -> float:
        """From its launch to its end, or until now."""
        return (self.ended or time.time()) - self.at


class Launches(dict[str, Launched]):
    """The instances of a cluster, by their ids. Each that is set, or has ended, is logged, with an `instance`."""

    def __setitem__(self, id: str, launched: Launched) -> None:
        """Set what is known of an instance."""
        before = self.get(id)
        super().__setitem__(id, launched)
        if before and before.ended == launched.ended:
            return
        state = "ended" if launched.ended else "launched"
        fields = {"id": id, "name": launched.name, "type": launched.type, "market": launched.market, "state": state}
        _log.info("%s, %s, has %s", launched.name, id, state, extra={"instance": fields})

    def have_ended(self, ids: set[str], moment: float) -> None:
        """Record when instances have ended, unless that is known already."""
        with _ending:
            for id in ids & set(self):
                self[id] = self[id].until(moment)


Kind = tuple[bool, str, str]  # of an instance: whether it is a worker, its type and its market
Known = dict[Kind, prices.Hourly]


class Prices:
    """The prices of a cluster's instances; each is asked for once, unless the answer is that there is none."""

    def __init__(self, aws: Aws, spec: ClusterSpec, disk_gib: int):
        self._aws, self._spec, self._disk_gib = aws, spec, disk_gib
        self.known: Known = {}
        self._asked: dict[Kind, float] = {}

    def of(self, one: Launched) -> prices.Hourly:
        """Return the price of an instance with its volume and its public address."""
        is_worker = one.name != "scheduler"
        key: Kind = (is_worker, one.type, one.market)
        if key not in self.known or (self.known[key].dollars is None and self._is_time_to_ask(key)):
            self._asked[key] = time.monotonic()
            self.known[key] = self._ask(one, by_user=self._spec.price if is_worker else None)
        return self.known[key]

    def _is_time_to_ask(self, key: Kind) -> bool:
        return time.monotonic() - self._asked.get(key, -_ASK_AGAIN_SECONDS) >= _ASK_AGAIN_SECONDS

    def _ask(self, one: Launched, by_user: float | None) -> prices.Hourly:
        try:
            ask = prices.price if one.name == "scheduler" else prices.price_of_worker
            price = prices.Price(by_user, "--price") if by_user else ask(self._aws, one.type, one.market)
            if price.dollars is None and self._spec.price:
                price = prices.Price(self._spec.price, "--price")  # of a scheduler: in doubt, as much as a worker
        except DaskClassifyError as error:
            return prices.Hourly(None, error.message)
        return prices.with_extras(self._spec, price, self._disk_gib)


def cost(known: Prices, launched: Mapping[str, Launched]) -> tuple[float, float] | None:
    """Return what instances have cost until now, and what they cost per hour, in $; None if that is not known.

    An instance without a price, such as a worker of a second type, counts at the highest price of a worker: a budget
    must not leave it out. If no worker has a price, nothing is known.
    """
    highest = highest_price(known, launched)
    spent = rate = 0.0
    for instance in launched.values():
        price = known.of(instance)
        price = highest if price.dollars is None else price
        if price is None:
            return None
        spent += price.cost(instance.seconds)
        rate += 0.0 if instance.ended else price.dollars
    return spent, rate


def highest_price(known: Prices, launched: Mapping[str, Launched]) -> prices.Hourly | None:
    """Return the highest known price of a worker."""
    of_workers = [known.of(instance) for instance in launched.values() if instance.name != "scheduler"]
    priced = [price for price in of_workers if price.dollars is not None]
    return max(priced, key=lambda price: price.dollars, default=None)


def bill(known: Prices, launched: Mapping[str, Launched]) -> dict[str, Any]:
    """Return the instances by id, their seconds, and dollars with their source; None for dollars without a price."""
    spent = cost(known, launched)
    instances = [
        {"id": id, "name": one.name, "type": one.type, "market": one.market, "seconds": round(one.seconds, 1)}
        for id, one in launched.items()
    ]
    return {
        "instances": instances,
        "instance_seconds": round(sum(instance["seconds"] for instance in instances), 1),
        "dollars": spent and spent[0],
        "price_source": ", ".join(dict.fromkeys(_source(known.of(one), one, spent) for one in launched.values())),
    }


def _source(price: prices.Hourly, one: Launched, spent: tuple[float, float] | None) -> str:
    if price.dollars is None and spent:
        return f"{one.type} counted at the highest known price"
    return price.source
