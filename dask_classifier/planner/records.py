"""Earlier runs as a record: what was predicted for them, and what happened. From plan.json and manifest.json alone."""

import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .. import storage
from ..errors import DaskClassifyError, StorageError
from ..parts.run_folder import MANIFEST, PLAN, RunFolder
from ..runs.planning import CODE, Plan
from ..units import count_of

STARTING = "starting machines"  # the stage of a manifest
_ALIKE = 0.15  # relative difference of two samples of the same kind of rows
_MOST = 100  # runs that are read, the last ones by name


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes
    ----------
    identity : dict
        Of its plan: classifier, code, slowness.
    prediction : dict or None
        What was predicted for its last attempt, from the manifest; None if nothing was.
    seconds : float
        What it took, from the manifest.
    ms_per_row : float
        Milliseconds per row of its blocks, without first calls of processes.
    starting : float or None
        Seconds of starting instances.
    """

    identity: dict[str, Any]
    prediction: dict[str, Any] | None
    seconds: float
    ms_per_row: float
    starting: float | None

    @property
    def is_inside(self) -> bool:
        """Whether the run took as long as predicted: within the interval."""
        predicted = self.prediction["seconds"]
        return predicted["low"] <= self.seconds <= predicted["high"]

    @property
    def error(self) -> float:
        """How far the prediction was from what it took, over the latter."""
        return abs(self.prediction["seconds"]["mid"] - self.seconds) / self.seconds


@dataclass(frozen=True)
class Calibration:
    """How good earlier predictions were."""

    runs: int
    inside: int  # of which the interval held what they took
    median_error: float  # relative

    def __str__(self) -> str:
        error = f"median error {self.median_error:.0%}"
        return f"{count_of(self.runs, 'earlier prediction')} here: {self.inside} within the range, {error}"


def records(prefix: str) -> list[Record]:
    """Return the complete runs in a folder or below an s3:// prefix, the last 100 by name; [] if there are none."""
    try:
        names = [url for url, _ in storage.listed(storage.join(prefix, "*", MANIFEST))]
    except StorageError:
        return []
    folders = [RunFolder(name.removesuffix(f"/{MANIFEST}")) for name in names[-_MOST:]]
    with ThreadPoolExecutor(16) as pool:
        return [record for record in pool.map(_record, folders) if record]


def _record(folder: RunFolder) -> Record | None:
    try:
        plan, manifest = folder.read_json(PLAN), folder.read_json(MANIFEST)
        if manifest.get("resumed") or manifest.get("partial"):
            return None
        parts, prediction = manifest["parts"], _prediction(manifest)
        rows = sum(part["rows"] + part["bad_rows"] for part in parts)
        seconds = sum(part["seconds"] for part in parts) - _first_calls(prediction, parts)
        if not rows or seconds <= 0:
            return None
        starting = [seconds for name, _, seconds in manifest.get("stages", ()) if name == STARTING]
        return Record(
            identity=plan["identity"],
            prediction=prediction,
            seconds=manifest["seconds"],
            ms_per_row=1000 * seconds / rows,
            starting=starting[0] if starting else None,
        )
    except (DaskClassifyError, LookupError, TypeError, ValueError):  # not a run of this version
        return None


def _prediction(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the prediction of a manifest, or None where there is none, or one of another version.

    That of plan.json is the first attempt's, which may have been elsewhere.
    """
    prediction = manifest.get("prediction")
    try:
        known = [prediction["seconds"][name] for name in ("low", "mid", "high")]
        known += [prediction[name] for name in ("processes", "sampled_ms_per_row", "first_call")]
        is_ours = all(isinstance(value, int | float) for value in known) and isinstance(prediction["where"], str)
        return prediction if is_ours and prediction["sampled_ms_per_row"] > 0 else None
    except (LookupError, TypeError):
        return None


def _first_calls(prediction: Mapping[str, Any] | None, parts: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of the first calls, which the prediction counts apart; the trial has done one of them."""
    processes = {(part["worker"], part["host"], part["pid"]) for part in parts}
    return prediction["first_call"] * (len(processes) - 1) if prediction else 0.0


def calibration(past: Sequence[Record]) -> Calibration | None:
    """Return how good the predictions of some runs were; None if nothing was predicted."""
    predicted = [record for record in past if record.prediction]
    if not predicted:
        return None
    inside = sum(record.is_inside for record in predicted)
    return Calibration(len(predicted), inside, statistics.median(record.error for record in predicted))


def correction(
    past: Sequence[Record], plan: Plan, place: tuple[str, str], processes: int, sampled_ms: float
) -> tuple[float, int]:
    """Return by what factor blocks are slower than a sample, from runs of this classifier, and the number of runs.

    `place` is where, and the instance type there. Runs with as many processes count or, if there are none, all in the
    same place; without any, the factor is 1. A run whose sample was like this one had the same kind of rows: then its
    own speed is expected, which a long run knows better than a sample. Otherwise it is the ratio of its speed to that
    of its sample.
    """
    mine = {name: plan.identity[name] for name in ("classifier", CODE, "slowness", "chunk rows")}
    same = [
        record
        for record in past
        if record.prediction
        and (record.prediction["where"], record.prediction.get("instance_type", "")) == place
        and {name: record.identity.get(name) for name in mine} == mine
    ]
    chosen = [record for record in same if record.prediction["processes"] == processes] or same
    factors = []
    for record in chosen[-10:]:
        before = record.prediction["sampled_ms_per_row"]
        is_alike = abs(sampled_ms / before - 1) <= _ALIKE
        factors.append(record.ms_per_row / (sampled_ms if is_alike else before))
    return (statistics.median(factors), len(factors)) if factors else (1.0, 0)


def usual_start(past: Sequence[Record]) -> float | None:
    """Return the median seconds in which instances were started; None if none ever were."""
    times = [record.starting for record in past if record.starting]
    return statistics.median(times) if times else None
