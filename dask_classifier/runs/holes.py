"""The rows that a partial run does not have: missing.json."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..rows.blocks import Block, Span, blocks_of_lines
from ..rows.source import Source


def holes_of(source: Source, blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Return the rows of blocks as ranges: file, first and last row (from 1, below the header) and number of rows.

    Blocks that follow each other in a file make one range.
    """
    return _ranges([file.url for file in source.files], (span for block in blocks for span in block.spans))


def holes_of_plan(plan: Mapping[str, Any], done: Iterable[int]) -> list[dict[str, Any]]:
    """Return the same from plan.json: the rows of the blocks that are not among `done`."""
    done = set(done)
    blocks = (block for block in blocks_of_lines(plan["blocks"]) if block.index not in done)
    urls = [file["url"] for file in plan["files"]]
    return _ranges(urls, (span for block in blocks for span in block.spans))


def _ranges(urls: Sequence[str], spans: Iterable[Span]) -> list[dict[str, Any]]:
    ranges: list[list[int]] = []  # file, first row (from 0), rows
    for span in spans:
        if ranges and ranges[-1][0] == span.file and ranges[-1][1] + ranges[-1][2] == span.first_row:
            ranges[-1][2] += span.rows
        else:
            ranges.append([span.file, span.first_row, span.rows])
    return [
        {"file": urls[file], "first_row": first + 1, "last_row": first + rows, "rows": rows}
        for file, first, rows in ranges
    ]
