"""EC2 in rehearsal: a cluster that time and budget choose, that grows, and the account of what it has cost."""

import json
import re

import pytest
from rehearse import finish

ROWS = ["--rows", "600", "--slowness", "1", "--block-rows", "100"]
SLEEPY = """
import time

def classify(chunk):
    time.sleep(0.01 * len(chunk))
    return chunk["SKU"].str.len().rename("CLASSIFICATION")
"""


def manifest_of(ec2, name):
    return json.loads(ec2.client("s3").get_object(Bucket="bucket", Key=f"{name}/manifest.json")["Body"].read())


def nothing_was_launched(ec2):
    return not ec2.events("call", call="RunInstances") and not ec2.events("call", call="CreateSecurityGroup")


def test_time_chooses_the_cluster_and_the_account_says_what_it_cost(ec2):
    words = [*ROWS, "--finish-in", "40m", "--budget", "5", "--yes", "--output", "s3://bucket/chosen"]
    done = ec2.command(*words, "--json", check=0)
    assert "> 1 x 2" in " ".join(done.stderr_text.split()), done.stderr_text
    told = json.loads(done.stdout_text)
    machines, predicted = told["machines"], told["prediction"]
    assert (predicted["where"], predicted["instances"], predicted["processes"]) == ("ec2", 1, 2)
    assert {one["type"] for one in machines["instances"]} == {"c7i.large", "t3.small"}
    assert all(one["id"].startswith("i-") and one["seconds"] > 0 for one in machines["instances"])
    assert machines["region"] == "us-east-1" and machines["ami"].startswith("ami-") and machines["image"]
    assert machines["instance_seconds"] == pytest.approx(sum(one["seconds"] for one in machines["instances"]))
    assert 0 < machines["dollars"] < 0.05 and "a table of" in machines["price_source"]
    assert "per million rows; an estimate from" in done.stderr_text and "predicted" in done.stderr_text
    ids = [one["id"] for one in machines["instances"]]
    report = ec2.command("report", "s3://bucket/chosen", check=0).stdout_text
    for text in (report, done.stderr_text):
        assert "per million rows" in text and "digests" in text and "pandas " in text and machines["image"] in text
        assert all(id in text for id in ids) and "1 c7i.large" in text
    assert "starting machines" in done.stderr_text and "classifying" in done.stderr_text, "seconds of each stage"
    page = ec2.client("s3").get_object(Bucket="bucket", Key="chosen/report.html")["Body"].read().decode()
    assert all(id in page for id in ids) and machines["image"] in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--finish-in", "5h", "--rows", "30M", "--yes"], "more than the 100,000 parts"),
        (["--finish-in", "40m"], "needs a confirmation"),
        (["--finish-in", "10s", "--yes"], "cannot meet its time or its budget: no choice is certain to finish by"),
        (
            ["--finish-in", "40m", "--budget", "0.001", "--yes"],
            "is certain to cost $0.001 or less; the cheapest may cost $0.0",
        ),
        (["--workers", "2", "--budget", "0.001"], "no cluster on EC2 is certain to cost $0.001 or less"),
        (
            ["--rows", "5M", "--workers", "2", "--budget", "50", "--deadline", "4m", "--bring-up-limit", "3m"],
            "no choice is certain to finish before the --deadline of its instances",
        ),
        (["--budget", "5", "--instance-type", "c5.metal", "--workers", "1"], "The price of the instances is unknown"),
    ],
)
def test_what_cannot_be_met_launches_nothing(options, message, ec2):
    done = ec2.command(*ROWS, *options, "--output", "s3://bucket/refused", check=2)
    assert message in done.stderr_text and "Hint: " in done.stderr_text, done.stderr_text
    assert nothing_was_launched(ec2)
    assert not ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix="refused").get("Contents")


def test_price_and_deadline_are_said_before_anything_is_made(ec2):
    """While the first request that makes something takes its time, the announcement is there."""
    ec2.settings(group_seconds=10)
    process = ec2.start(*ROWS, "--workers", "1", "--output", "s3://bucket/announced")
    said = []
    while not said or "shuts itself down by" not in said[-1]:
        said.append(process.stderr.readline())
        assert said[-1], "it ended without an announcement"
    assert re.search(r"Starting 1 on-demand c7i.large .*: about \$0\.13 per hour", "".join(said)), said
    assert not ec2.remains() and not ec2.events("boot")
    finish(process, 0)
    assert len(ec2.events("boot")) == 2


def test_nothing_is_launched_for_a_file_without_rows(ec2):
    """Nor is anything asked: an hour without rows is an hour like any other."""
    ec2.client("s3").put_object(Bucket="bucket", Key="empty.csv", Body=b"id,SKU\n")
    (ec2.folder / "sleepy.py").write_text(SLEEPY)
    words = ["--input", "s3://bucket/empty.csv", "--classifier", "sleepy.py:classify"]
    for name, options in (("timed", ["--finish-in", "40m"]), ("paid", ["--workers", "2", "--budget", "0.001"])):
        done = ec2.command(*words, *options, "--output", f"s3://bucket/{name}", check=0)
        assert "The source has no rows, so no instances are launched." in done.stderr_text
        assert manifest_of(ec2, name)["rows_in"] == 0
    assert nothing_was_launched(ec2)


def test_a_single_file_is_joined_here_if_no_size_is_given(ec2):
    """A complete run that lacks its single file: no cluster is sized, and none is launched."""
    words = ["--rows", "300", "--output", "s3://bucket/joined"]
    ec2.command(*words, "--cluster", "local", check=0)
    done = ec2.command(*words, "--resume", "--single-file", "--finish-in", "40m", check=0)
    assert nothing_was_launched(ec2), done.stderr_text
    assert manifest_of(ec2, "joined")["single_file"]["bytes"] > 0


def test_a_run_that_would_be_late_lets_its_cluster_grow_once(ec2):
    (ec2.folder / "sleepy.py").write_text(SLEEPY)
    rows = ["--rows", "6000", "--block-rows", "100", "--classifier", "sleepy.py:classify"]
    words = [*rows, "--workers", "1", "--finish-in", "1s", "--scale-up-to", "2", "--output", "s3://bucket/grown"]
    done = ec2.command(*words, check=0)
    assert done.stderr_text.count("the run will finish about") == 1
    grown = re.findall(r"the cluster grows by 1 worker, for about \$(\S+) more per hour", done.stderr_text)
    assert grown == ["0.10"], done.stderr_text  # of a c7i.large with its disk and its address
    assert "Started 3 instances, 3 terminated" in done.stderr_text
    workers = {part["worker"] for part in manifest_of(ec2, "grown")["parts"]}
    assert workers == {"worker-0", "worker-1"}


def test_prices_are_in_the_plan_even_where_aws_is_not_asked(command):
    """A computer without credentials: dollars from the table, for us-east-1, said so; and unknown ones are no zeros."""
    words = ["plan", "--rows", "100k", "--slowness", "1", "--sample", "100", "--finish-in", "5h"]
    done = command(*words, check=0)
    assert "a table of on-demand prices of" in done.stdout and "AWS was not asked" in done.stdout
    told = json.loads(command(*words, "--json", check=0, env={"DASK_CLASSIFIER__REGION": "eu-central-1"}).stdout)
    assert told["options"][0]["dollars"] == 0 and told["options"][1]["dollars"] is None
    assert any("only us-east-1" in note for note in told["notes"])


def test_a_cluster_never_shrinks_and_a_complete_run_is_not_estimated(ec2):
    """--scale-up-to below the number of workers; then the same command again."""
    words = [*ROWS, "--workers", "2", "--finish-in", "1ms", "--scale-up-to", "1", "--output", "s3://bucket/kept"]
    done = ec2.command(*words, check=0)
    assert "grows" not in done.stderr_text and "Started 3 instances, 3 terminated" in done.stderr_text
    again = ["--finish-in", "1ms", "--output", "s3://bucket/kept", "--resume"]
    done = ec2.command(*ROWS, *again, check=0)
    assert "already complete" in done.stderr_text and "ms per row" not in done.stderr_text
    assert len(ec2.events("call", call="RunInstances")) == 3


def test_local_workers_never_become_instances(ec2):
    """An image is configured and all files are in S3, but four processes were asked for, here."""
    words = [*ROWS, "--cluster", "local", "--workers", "4", "--finish-in", "1ms", "--output", "s3://bucket/here"]
    refused = ec2.command(*words, "--budget", "3", check=2)
    assert "--budget has no effect with the cluster local" in refused.stderr_text
    ec2.command(*words, check=0)
    assert nothing_was_launched(ec2)


SLOWER = """
import itertools
import time

calls = itertools.count()

def classify(chunk):
    time.sleep(0.05 if next(calls) < 30 else 5)
    return chunk["SKU"].str.len().rename("CLASSIFICATION")
"""


@pytest.mark.slow
def test_a_budget_that_is_used_up_ends_the_run_and_its_instances(ec2):
    """The plan is within the budget: its sample does not show that the classifier is slower later."""
    (ec2.folder / "slower.py").write_text(SLOWER)
    words = ["--classifier", "slower.py:classify", "--block-rows", "100", "--workers", "1"]
    ec2.command("--rows", "1000", *words, "--output", "s3://bucket/budgets/earlier", check=0)  # measures a start-up
    words += ["--rows", "12k", "--output", "s3://bucket/budgets/limited"]
    done = ec2.command(*words, "--price", "1", "--budget", "0.04", check=6)
    assert re.search(r"Stopped by --budget, after about \$0\.0[23]: \d+ of 120 blocks", done.stderr_text), (
        done.stderr_text
    )
    assert "Started 2 instances, 2 terminated" in done.stderr_text and not ec2.remains()
    done = ec2.command(*words, "--resume", "--cluster", "local", check=0)
    assert re.search(r"[1-9]\d* of 120 blocks are already done", done.stderr_text), done.stderr_text


@pytest.mark.slow
def test_what_is_done_in_time_is_published_and_completed_later(ec2):
    """--partial: a run that its time cuts off has proven holes, and a new cluster fills them."""
    (ec2.folder / "sleepy.py").write_text(SLEEPY)
    words = ["--rows", "8k", "--block-rows", "100", "--classifier", "sleepy.py:classify", "--workers", "1"]
    words += ["--output", "s3://bucket/partial"]
    done = ec2.command(*words, "--finish-in", "45s", "--partial", check=7)
    assert "Started 2 instances, 2 terminated" in done.stderr_text and not ec2.remains()
    missing = json.loads(ec2.client("s3").get_object(Bucket="bucket", Key="partial/missing.json")["Body"].read())
    manifest = manifest_of(ec2, "partial")
    assert manifest["partial"] is True and 0 < manifest["rows_out"] < manifest["rows_in"] == 8000
    assert manifest["rows_out"] + missing["rows"] == 8000
    assert (
        "rows missing, as missing.json lists them" in ec2.command("verify", "s3://bucket/partial", check=0).stdout_text
    )
    ec2.command(*words, "--resume", check=0)
    manifest = manifest_of(ec2, "partial")
    assert manifest["rows_out"] == 8000 and manifest["rows_missing"] == 0 and not manifest["partial"]
