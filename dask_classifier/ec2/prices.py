"""Estimated prices of clusters, from AWS's price list, its spot price history, or a dated table."""

import contextlib
import datetime
import json
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import DaskClassifyError
from .aws import Aws
from .placement import Placement
from .spec import ClusterSpec

TABLE_DATE = "2026-11-24"
# $/h, Linux, on-demand, us-east-1; used only if AWS does not answer. Sources: AWS's Auto Scaling guide for c5.2xlarge
# and c5.4xlarge; for the others, published copies of AWS's price list, that of c7i.large read on 2026-10-05.
# Within a family, prices are proportional to vCPUs.
_LARGE = {"c5": 0.085, "c6i": 0.085, "c7i": 0.08925, "c7g": 0.0725}
_SIZES = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "8xlarge": 16, "12xlarge": 24, "16xlarge": 32}
_TABLE = {f"{family}.{size}": price * times for family, price in _LARGE.items() for size, times in _SIZES.items()}
_TABLE |= {"t3.small": 0.0208, "t4g.small": 0.0168}
_TABLE_REGION = "us-east-1"
_GP3_GIB_MONTH, _HOURS_A_MONTH = 0.08, 730  # $, us-east-1
_PUBLIC_IPV4 = 0.005  # $/h


@dataclass(frozen=True)
class Hourly:
    """The price of all instances of a cluster in $/h; `dollars` is None if a price is unknown."""

    dollars: float | None
    source: str

    def as_json(self) -> dict[str, float | str | None]:
        """Return the JSON fields."""
        return {"dollars_per_hour": self.dollars, "price_source": self.source}

    def __str__(self):
        return f"about ${self.dollars:.2f} per hour ({self.source})" if self.dollars else "price unknown"


def hourly(aws: Aws, spec: ClusterSpec, placement: Placement, workers: int) -> Hourly:
    """Estimate the price of a cluster, with volumes and public addresses, if the first offers are available."""
    offers = [(placement.offers["scheduler"][0], 1), (placement.offers["worker"][0], workers)]
    prices = [price(aws, offer.type, offer.market) for offer, _ in offers]
    if not all(dollars for dollars, _ in prices):
        return Hourly(None, "")
    volume = placement.disk_gib * _GP3_GIB_MONTH / _HOURS_A_MONTH
    extra = volume + (0 if spec.private_ip else _PUBLIC_IPV4)
    total = sum(count * (dollars + extra) for (_, count), (dollars, _) in zip(offers, prices, strict=True))
    sources = ", ".join(dict.fromkeys(source for _, source in prices))
    return Hourly(total, f"an estimate from {sources}")


def price(aws: Aws, instance_type: str, market: str) -> tuple[float, str]:
    """Return the price of one instance in $/h, and its source; the price is 0 if it is unknown."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    with contextlib.suppress(ClientError, BotoCoreError, DaskClassifyError, KeyError, IndexError, ValueError):
        dollars = _spot(aws, instance_type) if market == "spot" else _listed(aws, instance_type)
        if dollars:
            return dollars, f"AWS's {'spot' if market == 'spot' else 'list'} prices of {today}"
    if aws.region == _TABLE_REGION and instance_type in _TABLE:
        return _TABLE[instance_type], f"a table of on-demand prices of {TABLE_DATE}"
    return 0.0, ""


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
