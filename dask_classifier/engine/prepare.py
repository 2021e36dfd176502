"""What comes before the first block: the trial, copies of inputs, the survey, the cut."""

import contextlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from ..classifier.job import SURVEY, TRY_OUT, WRITE_COPY, Trial
from ..errors import ProcessDied, SourceError
from ..rows.blocks import NO_ROWS, Marks, beginnings
from ..rows.layouts import Layout
from ..rows.reading import size_of
from ..rows.source import CopiedFile, Source, Surveyed
from ..runs.earlier import Earlier, clear
from ..runs.plan_file import Cut
from ..runs.planning import Plan
from ..runs.sizing import all_blocks
from ..runs.stages import Stages
from .executors import Executor
from .growing import GrowingCut
from .outcomes import values

if TYPE_CHECKING:
    import pandas as pd

    from ..rows.borders import Rows

TRIAL_CHUNKS = 20


def prepare(plan: Plan, earlier: Earlier, executor: Executor, stages: Stages) -> GrowingCut:
    """Cut the source, or go on with the cut of an earlier attempt; before, try the classifier out and copy inputs."""
    if earlier.cut is None:
        return _begin(plan, executor, stages)
    _restore_copies(plan, earlier, executor, stages)
    if earlier.cut.complete:
        return GrowingCut(plan, earlier.cut, executor)
    earlier.cut.forget_others(plan)
    stages.enter("finding rows")
    source, surveyed = survey(earlier.cut.source, executor, plan.limit)
    row_bytes = _row_bytes(plan.source.first_rows(plan.chunk_rows)[2])
    return GrowingCut(plan, replace(earlier.cut, source=source), executor, surveyed, row_bytes)


def _begin(plan: Plan, executor: Executor, stages: Stages) -> GrowingCut:
    """Try the classifier out, copy inputs, find the rows and cut.

    Before the trial has passed, only a probe is written, and deleted.
    """
    stages.enter("trying the classifier")
    chunks = 1 if plan.block_rows else TRIAL_CHUNKS  # with nothing to measure, one shows whether it works
    name, layout, sample = first_rows(plan, chunks)
    with plan.folder.probe() if executor.is_remote else contextlib.nullcontext() as probe:
        trial = try_out(executor, plan, name, layout, sample, probe)
    source = plan.source.with_copies(_enter_and_write(plan.source.copies, plan.source.layout, executor, stages))
    stages.enter("finding rows")
    source, surveyed = survey(source, executor, plan.limit)
    blocks = () if source.flowing else all_blocks(plan, source, surveyed, trial, _row_bytes(sample), executor.processes)
    cut = Cut(source, blocks, trial.seconds_a_row, complete=not source.flowing)
    if plan.overwrite:
        clear(plan)  # now nothing can be wrong with the new one
    cut.save(plan)
    return GrowingCut(plan, cut, executor, surveyed, _row_bytes(sample))


def first_rows(plan: Plan, chunks: int) -> "tuple[str, Layout, Rows | pd.DataFrame]":
    """Return the rows for a trial: the name of their input, their text format, and up to so many chunks of rows."""
    rows = chunks * plan.chunk_rows
    return plan.source.first_rows(rows if plan.limit is None else min(rows, plan.limit))


def _row_bytes(sample: "Rows | pd.DataFrame") -> float:
    return size_of(sample) / len(sample) if len(sample) else 0.0


def try_out(
    executor: Executor, plan: Plan, name: str, layout: Layout, sample: "Rows | pd.DataFrame", probe: str | None = None
) -> Trial:
    """Run the trial on a worker and return its measurement. Without a row, it still loads the classifier.

    Rows that kill their process are left to their block.
    """
    job = plan.job(plan.max_bad.of(10**9))  # a share of an unknown number of rows is no reason to stop here
    with closing(executor.each(TRY_OUT, [(job, name, layout, sample, probe)], plan.block_timeout)) as outcomes:
        (outcome,) = outcomes
    if isinstance(outcome.error, ProcessDied):
        return Trial(0, 0.0)
    if outcome.error:
        raise outcome.error
    return outcome.value


def _enter_and_write(
    files: list[tuple[int, CopiedFile]], layout: Layout, executor: Executor, stages: Stages
) -> dict[int, int]:
    if files:
        stages.enter("copying the input")
    return write_copies(files, layout, executor)


def write_copies(
    files: list[tuple[int, CopiedFile]], layout: Layout, executor: Executor, rows: int | None = None
) -> dict[int, int]:
    """Write copies of numbered files, or of their first rows, to be read instead; return sizes by these numbers."""
    sizes = {number: file.write_copy(layout) for number, file in files if file.copied_by_client}
    elsewhere = [(number, file) for number, file in files if not file.copied_by_client]
    outcomes = executor.each(WRITE_COPY, [(file, layout, rows) for _, file in elsewhere])
    return sizes | {elsewhere[place][0]: size for place, size in values(outcomes)}


def _restore_copies(plan: Plan, earlier: Earlier, executor: Executor, stages: Stages) -> None:
    """Write copies again that missing blocks need: a complete run has deleted its own."""
    missing = earlier.cut.missing(earlier.receipts)
    there, needed = plan.folder.sizes(), {span.file for block in missing for span in block.spans}
    lost = [
        (number, plan.source.files[number])
        for number, file in earlier.cut.source.copies
        if number in needed and there.get(file.data_url.removeprefix(f"{plan.output}/")) != file.data_size
    ]
    sizes = _enter_and_write(lost, plan.source.layout, executor, stages)
    for number, file in lost:
        if sizes[number] != earlier.cut.source.files[number].data_size:
            raise SourceError(f"{file.url} has changed since the run was cut.", "Start over with --overwrite.")


def survey(source: Source, executor: Executor, limit: int | None = None) -> tuple[Source, list[Marks]]:
    """Return the source, with all files inspected, and the marks of each input, from a survey on the workers.

    With a limit, only as much is surveyed as has so many rows, and the marks are those of these rows.
    """
    tasks, found = source.pieces(), []
    at_once = len(tasks) if limit is None else 2 * executor.processes
    while True:
        wave = tasks[len(found) : len(found) + at_once]
        arguments = [([(source.files[file], start) for file, start in pieces], source.layout) for pieces in wave]
        outcomes = _counted(values(executor.each(SURVEY, arguments)), tasks, len(found), executor)
        found += [pieces for _, pieces in sorted(outcomes, key=lambda numbered: numbered[0])]
        at_once *= 2
        if len(found) == len(tasks):
            known, surveyed = source.surveyed(_numbered(tasks, found))
            return known, beginnings(surveyed, limit)
        known, surveyed, rows = _so_far(source, tasks, found)
        if rows >= limit:
            return known, beginnings(surveyed, limit)


def _counted(
    outcomes: Iterator[tuple[int, list[Surveyed]]], tasks: list, before: int, executor: Executor
) -> Iterator[tuple[int, list[Surveyed]]]:
    """Yield what a wave of the tasks of a survey finds, and show how many pieces it has; `before` tasks are done."""
    pieces = sum(map(len, tasks))
    what = "files" if pieces == len({number for task in tasks for number, _ in task}) else "pieces"
    done = sum(map(len, tasks[:before]))
    for outcome in outcomes:
        done += len(outcome[1])
        executor.progress.counted(done, pieces, what)
        yield outcome


def _numbered(tasks: list, found: list[list[Surveyed]]) -> list[tuple[int, Surveyed]]:
    """Return what the first tasks of a survey have found, with the numbers of the files."""
    numbers = (number for pieces in tasks[: len(found)] for number, _ in pieces)
    return list(zip(numbers, (piece for several in found for piece in several), strict=True))


def _so_far(source: Source, tasks: list, found: list[list[Surveyed]]) -> tuple[Source, list[Marks], int]:
    """Return what a survey that goes on has found: source, marks, and the number of rows that can be cut.

    A file that is not surveyed to its end ends, for its marks, where the next piece begins. Rows behind its last but
    one mark, of which the last may be longer, cannot be cut.
    """
    pieces, (number, start) = _numbered(tasks, found), tasks[len(found)][0]
    files = list(source.files)
    if start:
        files[number] = replace(files[number], data_size=start)
        pieces = [(n, _ending_at(start, piece) if n == number else piece) for n, piece in pieces]
    behind = number + bool(start)
    known, surveyed = replace(source, files=tuple(files[:behind])).surveyed(pieces)
    complete = sum(marks.rows[-1] for marks in surveyed[:number])
    rows = complete + (surveyed[number].rows[-2] if start and len(surveyed[number].rows) > 1 else 0)
    files[:number] = known.files[:number]
    files[number] = (
        source.files[number] if not start else replace(known.files[number], data_size=source.files[number].data_size)
    )
    return replace(source, files=tuple(files)), surveyed + [NO_ROWS] * (len(files) - behind), rows


def _ending_at(stop: int, found: Surveyed) -> Surveyed:
    return found if found.file is None else found._replace(file=replace(found.file, data_size=stop))
