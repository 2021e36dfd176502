"""Earlier runs as a record of predictions: which count, and what they correct. On records, without a cluster."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dask_classifier.parts.receipts import Receipt
from dask_classifier.parts.run_folder import RunFolder
from dask_classifier.planner.records import Record, calibration, correction, records, usual_start
from dask_classifier.planner.replay import replay_of
from dask_classifier.runs.planning import CODE

IDENTITY = {"classifier": "mine.py:f", CODE: "abc", "slowness": 1, "chunk rows": 100}
PLAN = SimpleNamespace(identity=IDENTITY)
HERE, LARGE = ("local", ""), ("ec2", "c7i.large")


def record(where=HERE, *, processes=2, sampled=1.0, ms=1.2, seconds=100.0, starting=None, **identity):
    prediction = {
        "where": where[0],
        "instance_type": where[1],
        "processes": processes,
        "sampled_ms_per_row": sampled,
        "seconds": {"low": 90.0, "mid": 95.0, "high": 105.0},
    }
    return Record(IDENTITY | identity, prediction, seconds, ms, starting)


def test_without_earlier_runs_nothing_is_corrected():
    assert correction([], PLAN, HERE, 2, 1.0) == (1.0, 0)


def test_a_run_of_the_same_kind_of_rows_counts_with_its_own_speed():
    """Its sample was 1 ms, this one is 1.1: the run's 1.2 ms are expected. A sample of 2 ms had other rows."""
    assert correction([record()], PLAN, HERE, 2, 1.1) == (pytest.approx(1.2 / 1.1), 1)
    assert correction([record(sampled=2.0, ms=3.0)], PLAN, HERE, 2, 1.1) == (pytest.approx(1.5), 1)


@pytest.mark.parametrize(
    "other",
    [
        record(LARGE, ms=9),
        record(**{CODE: "xyz"}, ms=9),
        record(slowness=2, ms=9),
        replace(record(ms=9), prediction=None),
    ],
)
def test_other_places_and_classifiers_do_not_count(other):
    assert correction([other], PLAN, HERE, 2, 1.0) == (1.0, 0)
    assert correction([other, record()], PLAN, HERE, 2, 1.0) == (pytest.approx(1.2), 1)


def test_an_instance_type_is_not_another_one():
    past = [record(("ec2", "c7g.large"), ms=9), record(LARGE, ms=0.7)]
    assert correction(past, PLAN, LARGE, 2, 1.0) == (pytest.approx(0.7), 1)


def test_as_many_processes_come_first():
    past = [record(processes=8, ms=9.0), record(processes=2, ms=1.2), record(processes=2, ms=1.4)]
    assert correction(past, PLAN, HERE, 2, 1.0) == (pytest.approx(1.3), 2)
    assert correction(past, PLAN, HERE, 4, 1.0) == (pytest.approx(1.4), 3), "the median of all"


def test_how_good_predictions_were():
    """95 s were predicted, 90 to 105: three of four were within, and the errors are 5, 5, 0 and 52.5 %."""
    told = calibration(
        [record(), record(), record(seconds=95.0), record(seconds=200.0), replace(record(), prediction=None)]
    )
    assert (told.runs, told.inside) == (4, 3) and told.median_error == pytest.approx(0.05)
    assert str(told) == "4 earlier predictions here: 3 within the range, median error 5%"
    assert calibration([replace(record(), prediction=None)]) is None


def test_the_usual_start_of_instances():
    assert usual_start([record(), record(starting=100.0), record(starting=300.0), record(starting=120.0)]) == 120.0
    assert usual_start([record()]) is None


def stored(folder, *, prediction, **more):
    """A run of three blocks of 100 rows, on two processes: nine seconds, of which a first call took one and a half."""
    part = {"rows": 90, "bad_rows": 10, "seconds": 3.0, "worker": "w", "host": "h"}
    manifest = {
        "seconds": 20.0,
        "parts": [part | {"pid": pid} for pid in (1, 2, 2)],
        "prediction": prediction,
        "rows_in": 300,
        "rows_out": 270,
        "bad_rows": 30,
    } | more
    manifest["stages"] = [["starting machines", 0.0, 7.0]]
    RunFolder(str(folder)).write_json("manifest.json", manifest)
    RunFolder(str(folder)).write_json(
        "plan.json", {"identity": IDENTITY, "files": [], "blocks": [], "prediction": {"where": "elsewhere"}}
    )


def test_what_is_read_of_a_run(tmp_path):
    """The manifest has the prediction of the last attempt; that of plan.json may be of another one, elsewhere."""
    prediction = record().prediction | {"first_call": 1.5}
    stored(tmp_path / "1", prediction=prediction)
    stored(tmp_path / "2", prediction=None)
    stored(tmp_path / "3", prediction=prediction, resumed=[0])
    stored(tmp_path / "4", prediction=prediction, partial=True)
    first, second = records(str(tmp_path))
    assert first.prediction == prediction and second.prediction is None
    assert first.ms_per_row == pytest.approx(1000 * 7.5 / 300) and second.ms_per_row == pytest.approx(1000 * 9 / 300)
    assert (first.seconds, first.starting) == (20.0, 7.0)


def receipt(index, pid, started, seconds):
    """A block of 100 rows."""
    fields = {name: None for name in Receipt.__dataclass_fields__}
    given = {"index": index, "pid": pid, "worker": "w", "host": "h", "started": started, "seconds": seconds}
    return Receipt(**fields | given | {"rows": 100, "bad_rows": 0})


def result_of(*receipts):
    return SimpleNamespace(new_receipts=receipts, output="runs/1", manifest={"seconds": 10.0, "started": -1.0})


def test_processes_that_were_replaced_are_not_more_processes():
    """Two at a time, and each block in a process of its own, as with --renew-after 1."""
    blocks = [receipt(n, 100 + n, 1.0 * (n // 2), 0.9) for n in range(8)]
    replayed = replay_of(result_of(*blocks), [2])
    assert replayed.processes == 2 and replayed.tail == pytest.approx(0)
    assert replayed.lost == pytest.approx(6 * 0.1) and replayed.idle == pytest.approx(1 - 7.2 / 7.8)


def test_a_process_that_has_more_blocks_is_not_replaced():
    """The first one pauses while a second one begins: these are two."""
    blocks = [receipt(0, 1, 0.0, 1.0), receipt(1, 2, 1.5, 1.0), receipt(2, 1, 3.0, 1.0)]
    replayed = replay_of(result_of(*blocks), [1])
    assert replayed.processes == 2 and replayed.tail == pytest.approx(1.5) and replayed.lost == pytest.approx(2.0)
