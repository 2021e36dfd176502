"""Estimated prices of clusters: given by the user, from AWS, or from a dated table; never 0.

An instance, its volume and its public address are billed per second, 60 seconds at least:
https://aws.amazon.com/ec2/pricing/on-demand/
"""

import datetime
import json
import re
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import DaskClassifyError
from . import price_cache
from .aws import Aws, code_of, configured_region
from .placement import Placement
from .spec import DISK_GIB, SCHEDULER_TYPES, ClusterSpec

LEAST_SECONDS = 60  # billed for an instance
TABLE_DATE, _TABLE_REGION = "2026-11-25", "us-east-1"
# $/h of the size `large`, or of the size named; Linux, on-demand. Within a family, prices are proportional to vCPUs.
# Sources: AWS's Auto Scaling guide for c5.2xlarge and c5.4xlarge; for the others, published copies of AWS's price list,
# that of c7i.large read on 2026-10-05, those of t3a.small and m6g on 2026-11-25, the rest on 2026-11-24.
_LARGE = {"c5": 0.085, "c6i": 0.085, "c7i": 0.08925, "c7g": 0.0725, "m6g": 0.077}
_SIZES = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "8xlarge": 16, "12xlarge": 24, "16xlarge": 32}
_TABLE = {f"{family}.{size}": price * times for family, price in _LARGE.items() for size, times in _SIZES.items()}
_TABLE |= {"t3.small": 0.0208, "t3a.small": 0.0188, "t4g.small": 0.0168, "m6g.medium": 0.0385}
_GP3_GIB_MONTH, _HOURS_A_MONTH = 0.08, 730  # $, us-east-1; elsewhere it is up to twice as much: docs/safety.md
_PUBLIC_IPV4 = 0.005  # $/h
# $/h of a vCPU of a burstable type that works all the time, at most: https://aws.amazon.com/ec2/pricing/on-demand/,
# "Unlimited mode pricing"; not checked there. T2 is billed so only if the account's default is "unlimited"
_SURPLUS = {"t2": 0.05, "t3": 0.05, "t3a": 0.05, "t4g": 0.04}


@dataclass(frozen=True)
class Price:
    """The price of one instance in $/h, or None if it is unknown; and where it comes from, or why it is unknown."""

    dollars: float | None
    source: str


@dataclass(frozen=True)
class Hourly:
    """The price of all instances of a cluster in $/h, or None if one is unknown; and its source, or why it is."""

    dollars: float | None
    source: str

    def as_json(self) -> dict[str, float | str | None]:
        """Return the JSON fields."""
        return {"dollars_per_hour": self.dollars, "price_source": self.source}

    def cost(self, seconds: float) -> float | None:
        """Return the dollars for some seconds from launch to termination."""
        return None if self.dollars is None else self.dollars * max(seconds, LEAST_SECONDS) / 3600

    def __str__(self) -> str:
        if self.dollars is None:
            return f"price unknown ({self.source})"
        return f"about ${self.dollars:.2f} per hour ({self.source})"


def hourly(aws: Aws, spec: ClusterSpec, placement: Placement, workers: int) -> Hourly:
    """Estimate the price of a cluster, with volumes and public addresses, if the first offers are available."""
    worker, scheduler = placement.offers["worker"][0], placement.offers["scheduler"][0]
    of_worker = Price(spec.price, "--price") if spec.price else price_of_worker(aws, worker.type, worker.market)
    of_scheduler = price(aws, scheduler.type, scheduler.market)
    if spec.price and of_scheduler.dollars is None:
        of_scheduler = of_worker  # in doubt, as much as a worker
    if unknown := [each.source for each in (of_worker, of_scheduler) if each.dollars is None]:
        return Hourly(None, unknown[0])
    return _total(spec, workers, of_worker, of_scheduler, placement.disk_gib)


def from_table(spec: ClusterSpec, workers: int) -> Hourly:
    """Estimate the price of a cluster without asking AWS, for us-east-1 if no region is given or configured."""
    region = spec.region or configured_region() or _TABLE_REGION
    kind, scheduler = spec.instance_type[0], (spec.scheduler_instance_type or _schedulers(spec.instance_type[0]))[0]
    of_worker = Price(spec.price, "--price") if spec.price else _at_full_load(_tabled(kind, region), kind)
    of_scheduler = _tabled(scheduler, region)
    if spec.price and of_scheduler.dollars is None:
        of_scheduler = of_worker
    if unknown := [each.source for each in (of_worker, of_scheduler) if each.dollars is None]:
        return Hourly(None, unknown[0])
    return _total(spec, workers, of_worker, of_scheduler, DISK_GIB)


def _schedulers(worker: str) -> tuple[str, ...]:
    family = worker.partition(".")[0]
    return SCHEDULER_TYPES["arm64" if family.rstrip("dn").endswith("g") else "x86_64"]


def vcpus(instance_type: str) -> int:
    """Return the vCPUs of an instance type by its size, as EC2 names sizes, without asking AWS."""
    size = instance_type.partition(".")[2]
    if match := re.fullmatch(r"(\d*)xlarge", size):
        return 4 * int(match[1] or 1)
    return 1 if size == "medium" and not instance_type.startswith("t") else 2


def with_extras(spec: ClusterSpec, price: Price, disk_gib: int) -> Hourly:
    """Return the price of one instance with its volume and its public address."""
    if price.dollars is None:
        return Hourly(None, price.source)
    volume = disk_gib * _GP3_GIB_MONTH / _HOURS_A_MONTH
    return Hourly(price.dollars + volume + (0 if spec.private_ip else _PUBLIC_IPV4), price.source)


def _total(spec: ClusterSpec, workers: int, of_worker: Price, of_scheduler: Price, disk_gib: int) -> Hourly:
    worker, scheduler = (with_extras(spec, price, disk_gib).dollars for price in (of_worker, of_scheduler))
    total = workers * worker + scheduler
    sources = dict.fromkeys((of_worker.source, of_scheduler.source))
    return Hourly(total, f"an estimate from {', '.join(sources)}")


def price(aws: Aws, instance_type: str, market: str) -> Price:
    """Return the price of one instance, from AWS if it answers, else on-demand from the table."""
    ask = _spot if market == "spot" else _listed
    try:
        dollars, day = price_cache.of_today(f"{aws.region} {market} {instance_type}", lambda: ask(aws, instance_type))
        return Price(dollars, f"AWS's {'spot' if market == 'spot' else 'list'} prices of {day}")
    except (ClientError, BotoCoreError, DaskClassifyError) as error:
        why = f" ({code_of(error) or type(error).__name__})"
    except (LookupError, ValueError):
        why = ""  # it answered, without a price
    tabled = _tabled(instance_type, aws.region)
    if tabled.dollars is not None:
        return tabled
    return Price(None, f"AWS gave none for {instance_type} in {aws.region}{why}, and {tabled.source}")


def price_of_worker(aws: Aws, instance_type: str, market: str) -> Price:
    """Return the price of an instance whose cores are always busy."""
    return _at_full_load(price(aws, instance_type, market), instance_type)


def _at_full_load(price: Price, instance_type: str) -> Price:
    surplus = _SURPLUS.get(instance_type.partition(".")[0])
    if price.dollars is None or surplus is None:
        return price
    return Price(price.dollars + surplus * vcpus(instance_type), f"{price.source}, with CPU credits")


def _tabled(instance_type: str, region: str) -> Price:
    """Return the price of the table: on-demand, us-east-1."""
    if region == _TABLE_REGION and instance_type in _TABLE:
        return Price(_TABLE[instance_type], f"a table of on-demand prices of {TABLE_DATE}")
    has = "other types" if region == _TABLE_REGION else f"only {_TABLE_REGION}"
    return Price(None, f"the table of {TABLE_DATE} has {has}; give one with --price")


def _listed(aws: Aws, instance_type: str) -> float:
    fields = {
        "instanceType": instance_type,
        "regionCode": aws.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
    pricing = Aws("us-east-1").client("pricing", read_timeout=5, retries={"total_max_attempts": 1})
    (entry,) = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=1)["PriceList"]
    (terms,) = json.loads(entry)["terms"]["OnDemand"].values()
    (dimension,) = terms["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])


def _spot(aws: Aws, instance_type: str) -> float:
    history = aws.ec2.describe_spot_price_history(
        InstanceTypes=[instance_type], ProductDescriptions=["Linux/UNIX"], StartTime=datetime.datetime.now(datetime.UTC)
    )["SpotPriceHistory"]
    return max(float(entry["SpotPrice"]) for entry in history)
