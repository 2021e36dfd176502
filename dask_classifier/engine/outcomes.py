"""The outcomes of what a run does before and after its blocks: each must succeed."""

from collections.abc import Generator, Iterator
from contextlib import closing

from ..errors import BlocksFailed, ProcessDied
from .flight import Outcome

_READING = "The source could not be read"


def values(outcomes: Generator[Outcome], failure: str = _READING) -> Iterator[tuple[int, object]]:
    """Yield the numbered values of outcomes. Raise the first failure; `failure` says what has failed, in words."""
    with closing(outcomes):
        for outcome in outcomes:
            yield outcome.number, value_of(outcome, failure)


def value_of(outcome: Outcome, failure: str = _READING) -> object:
    """Return the value of an outcome. Raise its failure."""
    if isinstance(outcome.error, ProcessDied):
        raise BlocksFailed(
            f"{failure}: a process {outcome.error.message}.",
            "Check that the computers have enough memory, then repeat the command, a run with --resume.",
        )
    if outcome.error:
        raise outcome.error
    return outcome.value
