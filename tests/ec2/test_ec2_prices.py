"""Estimated prices: the user's, AWS's, remembered for a day, or the table's; and never 0."""

import http.server
import json
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rehearse import IMAGE

from dask_classifier.ec2 import bill, prices
from dask_classifier.ec2.aws import Aws
from dask_classifier.ec2.placement import Offer, Placement
from dask_classifier.ec2.prices import Hourly
from dask_classifier.ec2.spec import DISK_GIB, INSTANCE_TYPES, SCHEDULER_TYPES, ClusterSpec
from dask_classifier.errors import UsageError

ROOT = Path(__file__).parents[2]


class PriceList(http.server.BaseHTTPRequestHandler):
    """AWS's price list, in which every type costs the same."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        terms = {"OnDemand": {"term": {"priceDimensions": {"rate": {"pricePerUnit": {"USD": self.server.dollars}}}}}}
        body = json.dumps({"PriceList": [json.dumps({"terms": terms})]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def price_list(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PriceList)
    server.asked, server.dollars = 0, "0.5"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_price_list(price_list):
    """AWS answers, and knows no price."""
    price_list.dollars = "0.0"
    return price_list


def test_aws_is_asked_once_a_day(price_list, tmp_path):
    for _ in range(2):
        price = prices.price(Aws("eu-west-1"), "c7i.large", "on-demand")
        assert price.dollars == 0.5 and re.fullmatch(r"AWS's list prices of 20\d\d-\d\d-\d\d", price.source)
    assert price_list.asked == 1
    prices.price(Aws("eu-west-1"), "c7i.xlarge", "on-demand")
    assert price_list.asked == 2
    file = tmp_path / "cache/dask-classify/prices.json"
    file.write_text(file.read_text().replace(price.source.split()[-1], "2026-01-01"))
    prices.price(Aws("eu-west-1"), "c7i.large", "on-demand")
    assert price_list.asked == 3


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"eu-west-1 on-demand c7i.large": {"day": 1}}'])
def test_a_damaged_cache_is_made_anew(price_list, tmp_path, content):
    file = tmp_path / "cache/dask-classify/prices.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert prices.price(Aws("eu-west-1"), "c7i.large", "on-demand").dollars == 0.5
    assert "c7i.large" in file.read_text()


def test_a_cached_price_of_zero_is_none(price_list, tmp_path):
    """Of today, so that it would count."""
    prices.price(Aws("eu-west-1"), "c7i.large", "on-demand")
    file = tmp_path / "cache/dask-classify/prices.json"
    file.write_text(file.read_text().replace("0.5", "0.0"))
    assert prices.price(Aws("eu-west-1"), "c7i.large", "on-demand").dollars == 0.5


def test_a_cache_that_cannot_be_written_is_no_failure(price_list, tmp_path):
    (tmp_path / "cache").write_text("a file, where the folder should be")
    assert prices.price(Aws("eu-west-1"), "c7i.large", "on-demand").dollars == 0.5


def test_the_table_has_every_type_that_is_a_default_or_in_the_docs(no_price_list):
    docs = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    named = {
        match
        for doc in docs
        for match in re.findall(r"\b[a-z]\d[a-z]*\.(?:[0-9]*x?large|medium|small)\b", doc.read_text())
    }
    defaults = {*INSTANCE_TYPES, *(name for names in SCHEDULER_TYPES.values() for name in names)}
    assert len(named) > 5 and {"t4g.small", "c7i.large"} <= defaults
    for name in named | defaults:
        price = prices.price(Aws("us-east-1"), name, "on-demand")
        assert price.dollars and price.source.startswith("a table of on-demand prices of 20"), name
    assert no_price_list.asked


def test_the_table_is_not_that_of_another_region(no_price_list):
    price = prices.price(Aws("eu-west-1"), "c7i.large", "on-demand")
    assert price.dollars is None, "never 0, and never another region's"
    assert "in eu-west-1, and the table of 20" in price.source and "only us-east-1" in price.source
    assert "price unknown (AWS gave none for c7i.large" in str(Hourly(*vars(price).values()))


def test_per_second_and_a_minute_at_least():
    hourly = Hourly(36.0, "a test")
    assert hourly.cost(0) == hourly.cost(60) == pytest.approx(0.6)
    assert hourly.cost(90) == pytest.approx(0.9)
    assert Hourly(None, "nobody knows").cost(90) is None


@pytest.mark.parametrize("price", ["0.25", "$0.25", 0.25])
def test_a_price_is_given(price):
    assert ClusterSpec.of(image=IMAGE, price=price).price == 0.25


@pytest.mark.parametrize("price", ["cheap", "0", "-1", "inf", "nan"])
def test_what_is_not_a_price(price):
    with pytest.raises(UsageError, match="is not a price"):
        ClusterSpec.of(image=IMAGE, price=price)


def test_plan_with_a_price_of_ones_own(ec2):
    words = ["plan", "--rows", "10k", "--workers", "4", "--private-ip", "--json"]
    told = json.loads(ec2.command(*words, "--price", "1", check=0).stdout_text)
    assert 4.02 < told["dollars_per_hour"] < 4.1, "four workers, a scheduler of the table, and disks"
    assert "--price" in told["price_source"] and "a table of" in told["price_source"]


def test_plan_without_any_price_says_why(ec2):
    done = ec2.command("plan", "--rows", "10k", "--instance-type", "r5.large", check=0)
    line = next(line for line in done.stdout_text.splitlines() if line.startswith("price"))
    assert "price unknown (AWS gave none for r5.large in us-east-1" in line and "give one with --price" in line
    assert "processes" in done.stdout_text
    told = json.loads(
        ec2.command("plan", "--rows", "10k", "--instance-type", "r5.large", "--json", check=0).stdout_text
    )
    assert told["dollars_per_hour"] is None and "--price" in told["price_source"]


# --- what a cluster has cost ---------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch):
    """The prices of a cluster, from a list of what AWS answers."""
    answers = {"a.large": [0.10], "b.large": [None, 0.20], "scheduler.large": [0.01]}

    def answer(aws, instance_type, market):
        told = answers[instance_type]
        return prices.Price(told.pop(0) if len(told) > 1 else told[0], f"of {instance_type}")

    monkeypatch.setattr(prices, "price", answer)
    monkeypatch.setattr(prices, "with_extras", lambda spec, price, disk: prices.Hourly(price.dollars, price.source))
    return bill.Prices(None, ClusterSpec.defaults(), 30)


def launched(**seconds):
    """Instances of types that were launched some seconds ago."""
    return {kind: bill.Launched(kind, f"{kind}.large", "on-demand", time.time() - ago) for kind, ago in seconds.items()}


def test_an_instance_that_has_ended_costs_no_more(known):
    instances = launched(a=7200)
    instances["a"] = instances["a"].until(time.time() - 3600).until(time.time())
    assert bill.cost(known, instances) == (pytest.approx(0.10, rel=1e-3), 0.0)
    (listed,) = bill.bill(known, instances)["instances"]
    assert listed["seconds"] == pytest.approx(3600, abs=5)


def test_an_instance_without_a_price_counts_at_the_highest_until_there_is_one(known, monkeypatch):
    """A budget must not leave it out; AWS is asked again a minute later."""
    instances = launched(a=3600, b=3600)
    assert bill.cost(known, instances) == (pytest.approx(0.20, rel=1e-3), pytest.approx(0.20))
    assert "b.large counted at the highest known price" in bill.bill(known, instances)["price_source"]
    assert bill.cost(known, launched(b=3600, scheduler=3600)) is None, "a scheduler's price is no bound for a worker's"
    clock = time.monotonic() + 61
    monkeypatch.setattr(bill.time, "monotonic", lambda: clock)
    assert bill.cost(known, instances) == (pytest.approx(0.30, rel=1e-3), pytest.approx(0.30))


# --- sums, without AWS -----------------------------------------------------------------------------------

KINDS = {"worker": "c7i.large", "scheduler": "t3.small"}


def cluster_price(monkeypatch, known, **options):
    """What three workers and a scheduler cost per hour, where AWS has these prices, and disks of 40 GiB."""
    monkeypatch.setattr(prices, "price", lambda aws, kind, market: prices.Price(known.get(kind), "a test"))
    kinds = KINDS | {"worker": options.pop("worker", KINDS["worker"])}
    offers = {role: [Offer("on-demand", kind, "subnet-1", "us-east-1a")] for role, kind in kinds.items()}
    here = Placement("vpc-1", "ami-1", "/dev/xvda", "x86_64", {}, offers, "192.0.2.1/32", 40)
    return prices.hourly(None, ClusterSpec.of(image="a/b:1", **options), here, 3).dollars


def test_a_worker_of_a_burstable_type_is_always_busy_and_its_scheduler_is_not(monkeypatch):
    known, others = {"t3.2xlarge": 0.33, "t4g.large": 0.07, "t3.small": 0.02}, 4 * (40 * 0.08 / 730 + 0.005) + 0.02
    assert cluster_price(monkeypatch, known, worker="t3.2xlarge") == pytest.approx(3 * (0.33 + 8 * 0.05) + others)
    assert cluster_price(monkeypatch, known, worker="t4g.large") == pytest.approx(3 * (0.07 + 2 * 0.04) + others)
    spec = ClusterSpec.of(image=IMAGE, instance_type="t3.small", region="us-east-1")
    assert prices.from_table(spec, 1).dollars == pytest.approx(2 * (0.0208 + 40 * 0.08 / 730 + 0.005) + 2 * 0.05)


def test_the_table_is_not_that_of_another_region_that_is_configured(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert prices.from_table(ClusterSpec.of(image=IMAGE), 1).dollars is None
    assert prices.from_table(ClusterSpec.of(image=IMAGE, region="us-east-1"), 1).dollars > 0


def test_the_price_of_a_cluster_is_the_sum_of_its_parts(monkeypatch):
    known, disk, address = {"c7i.large": 0.09, "t3.small": 0.02}, 40 * 0.08 / 730, 0.005
    total = 3 * 0.09 + 0.02 + 4 * disk
    assert cluster_price(monkeypatch, known) == pytest.approx(total + 4 * address)
    assert cluster_price(monkeypatch, known, private_ip=True) == pytest.approx(total)
    given = 3 * 1.0 + 4 * (disk + address)
    assert cluster_price(monkeypatch, known, price=1) == pytest.approx(given + 0.02), "of a worker, given by the user"
    assert cluster_price(monkeypatch, {}, price=1) == pytest.approx(given + 1.0), "a scheduler as much as a worker"
    assert cluster_price(monkeypatch, {"c7i.large": 0.09}) is None


def test_a_spot_price_is_the_highest_of_the_zones():
    history = {"SpotPriceHistory": [{"SpotPrice": "0.03"}, {"SpotPrice": "0.05"}, {"SpotPrice": "0.04"}]}
    asked = SimpleNamespace(ec2=SimpleNamespace(describe_spot_price_history=lambda **options: history))
    assert prices._spot(asked, "c7i.large") == 0.05


def test_the_table_knows_arm_and_the_scheduler_beside_it():
    extras = DISK_GIB * 0.08 / 730 + 0.005
    told = prices.from_table(ClusterSpec.of(image="a/b:1", instance_type="c7g.large"), 2)
    assert told.dollars == pytest.approx(2 * 0.0725 + 0.0168 + 3 * extras), "a t4g.small, and not a t3.small"


@pytest.mark.parametrize(
    ("kind", "count"),
    [("c7i.large", 2), ("c7i.xlarge", 4), ("c5.2xlarge", 8), ("c7i.16xlarge", 64), ("m6g.medium", 1), ("t3.medium", 2)],
)
def test_vcpus_by_the_name_of_a_size(kind, count):
    """As in https://aws.amazon.com/ec2/instance-types/."""
    assert prices.vcpus(kind) == count
