"""The rows that a partial run does not have: missing.json."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..rows.source import Block, Source


def holes_of(source: Source, blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Return the rows of blocks as ranges: file, first and last row (from 1, below the header) and number of rows.

    Blocks that follow each other in a file make one range.
    """
    return _ranges([file.url for file in source.files], ((block.file, block.first_row, block.rows) for block in blocks))


def holes_of_plan(plan: Mapping[str, Any], done: Iterable[int]) -> list[dict[str, Any]]:
    """Return the same from plan.json: the rows of the blocks that are not among `done`."""
    done = set(done)
    blocks = (Block(*values) for values in plan["blocks"])
    urls = [file["url"] for file in plan["files"]]
    return _ranges(urls, ((block.file, block.first_row, block.rows) for block in blocks if block.index not in done))


def _ranges(urls: Sequence[str], blocks: Iterable[tuple[int, int, int]]) -> list[dict[str, Any]]:
    ranges: list[list[int]] = []  # file, first row (from 0), rows
    for file, first, rows in blocks:
        if ranges and ranges[-1][0] == file and ranges[-1][1] + ranges[-1][2] == first:
            ranges[-1][2] += rows
        else:
            ranges.append([file, first, rows])
    return [
        {"file": urls[file], "first_row": first + 1, "last_row": first + rows, "rows": rows}
        for file, first, rows in ranges
    ]
