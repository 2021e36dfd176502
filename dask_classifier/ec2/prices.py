"""What instances cost per hour: AWS's own price list, else spot's history, else a small dated table."""

import contextlib
import datetime
import json
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import DaskClassifyError
from .aws import Aws
from .placement import Ground
from .spec import ClusterSpec

TABLE_DATE = "2026-11-24"
# $/h, Linux, on demand, us-east-1, only for when AWS cannot be asked. AWS's Auto Scaling guide has c5.2xlarge and
# c5.4xlarge; the others stand in several published copies of AWS's price list, one of c7i.large read on 2026-10-05.
# Sizes of a family are priced in proportion to their vCPUs.
_LARGE = {"c5": 0.085, "c6i": 0.085, "c7i": 0.08925, "c7g": 0.0725}
_SIZES = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "8xlarge": 16, "12xlarge": 24, "16xlarge": 32}
_TABLE = {f"{family}.{size}": price * times for family, price in _LARGE.items() for size, times in _SIZES.items()}
_TABLE |= {"t3.small": 0.0208, "t4g.small": 0.0168}
_TABLE_REGION = "us-east-1"
_GP3_GIB_MONTH, _HOURS_A_MONTH = 0.08, 730  # $, us-east-1
_PUBLIC_IPV4 = 0.005  # $/h


@dataclass(frozen=True)
class Hourly:
    """$ an hour for all machines of a cluster; `dollars` is None when a price is not known."""

    dollars: float | None
    source: str

    def as_json(self) -> dict[str, float | str | None]:
        """For programs."""
        return {"dollars_per_hour": self.dollars, "price_source": self.source}

    def __str__(self):
        return f"about ${self.dollars:.2f} an hour ({self.source})" if self.dollars else "price not known"


def hourly(aws: Aws, spec: ClusterSpec, ground: Ground, workers: int) -> Hourly:
    """An estimate: the scheduler and the workers of the first type, their disks, their public addresses."""
    wanted = [(ground.offers["scheduler"][0], 1), (ground.offers["worker"][0], workers)]
    prices = [price(aws, offer.type, offer.market) for offer, _ in wanted]
    if not all(dollars for dollars, _ in prices):
        return Hourly(None, "")
    each = ground.disk_gib * _GP3_GIB_MONTH / _HOURS_A_MONTH + (0 if spec.private_ip else _PUBLIC_IPV4)
    total = sum(count * (dollars + each) for (_, count), (dollars, _) in zip(wanted, prices, strict=True))
    sources = ", ".join(dict.fromkeys(source for _, source in prices))
    return Hourly(total, f"an estimate from {sources}")


def price(aws: Aws, kind: str, market: str) -> tuple[float, str]:
    """$ an hour of one instance, and where that is from; 0 when it is not known."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    with contextlib.suppress(ClientError, BotoCoreError, DaskClassifyError, KeyError, IndexError, ValueError):
        found = _spot(aws, kind) if market == "spot" else _listed(aws, kind)
        if found:
            return found, f"AWS's {'spot' if market == 'spot' else 'list'} prices of {today}"
    if aws.region == _TABLE_REGION and kind in _TABLE:
        return _TABLE[kind], f"a table of on-demand prices of {TABLE_DATE}"
    return 0.0, ""


def _listed(aws: Aws, kind: str) -> float:
    wanted = {
        "instanceType": kind,
        "regionCode": aws.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()]
    pricing = Aws("us-east-1").client("pricing", read_timeout=5, retries={"total_max_attempts": 1})
    (entry,) = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=1)["PriceList"]
    (terms,) = json.loads(entry)["terms"]["OnDemand"].values()
    (dimension,) = terms["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])


def _spot(aws: Aws, kind: str) -> float:
    told = aws.ec2.describe_spot_price_history(
        InstanceTypes=[kind], ProductDescriptions=["Linux/UNIX"], StartTime=datetime.datetime.now(datetime.UTC)
    )["SpotPriceHistory"]
    return max(float(each["SpotPrice"]) for each in told)
