"""Where blocks were classified: workers and their processes, and their names for people."""

from collections import Counter
from collections.abc import Mapping

from ..parts.receipts import Receipt

Place = tuple[str, str, int]  # worker, host, process ID


def place_of(receipt: Receipt) -> Place:
    """Return the process that classified a block."""
    return receipt.worker, receipt.host, receipt.pid


def rows_by_worker(receipts: list[Receipt]) -> dict[str, int]:
    """Return the rows that each worker has done or, if there was one worker, each of its processes."""
    rows: Counter[Place] = Counter()
    for receipt in receipts:
        rows[place_of(receipt)] += receipt.rows + receipt.bad_rows
    return rows_by_name(rows)


def place_names(receipts: list[Receipt]) -> dict[int, str]:
    """Return the name of the worker that classified each block or, if there was one worker, of the process."""
    names = names_of({place_of(receipt) for receipt in receipts})
    return {receipt.index: names[place_of(receipt)] for receipt in receipts}


def rows_by_name(rows: Mapping[Place, int]) -> dict[str, int]:
    """Return the rows of each worker or, if there is only one, of each of its processes, by name."""
    names, total = names_of(set(rows)), Counter[str]()
    for place, count in rows.items():
        total[names[place]] += count
    return dict(sorted(total.items()))


def names_of(places: set[Place]) -> dict[Place, str]:
    """Return names for people: of the workers or, if there is only one, of its processes."""
    single = len({(worker, host) for worker, host, _ in places}) == 1
    return {(worker, host, pid): f"process {pid}" if single else f"{worker} on {host}" for worker, host, pid in places}
