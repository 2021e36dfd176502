"""The outcomes of a run's preparations: each must succeed."""

from collections.abc import Generator, Iterator
from contextlib import closing

from ..errors import BlocksFailed, ProcessDied
from .flight import Outcome


def values(outcomes: Generator[Outcome]) -> Iterator[tuple[int, object]]:
    """Yield the numbered values of outcomes. Raise the first failure."""
    with closing(outcomes):
        for outcome in outcomes:
            yield outcome.number, value_of(outcome)


def value_of(outcome: Outcome) -> object:
    """Return the value of an outcome. Raise its failure."""
    if isinstance(outcome.error, ProcessDied):
        raise BlocksFailed(
            f"The source could not be read: a process {outcome.error.message}.",
            "Check that the computer has enough memory, then continue with --resume.",
        )
    if outcome.error:
        raise outcome.error
    return outcome.value
