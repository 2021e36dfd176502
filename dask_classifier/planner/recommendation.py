"""Which of several places and sizes a run should have, by time and money, and why."""

import math
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace

from ..units import format_dollars
from .estimate import EC2, HOUR, LOCAL, Choice, clock
from .target import Target


def recommend(
    choices: Sequence[Choice], target: Target, places: Container[str] = (LOCAL, EC2)
) -> tuple[int | None, str]:
    """Return the number of the cheapest choice that surely meets the target, or None, and the reason in words.

    Without a target, it is the cheapest one within an hour, or the fastest one if none is.
    """
    within = target if target.is_given else Target(finish_by=time.time() + HOUR)
    possible = [number for number, choice in enumerate(choices) if choice.where in places]
    met = [number for number in possible if within.is_met(choices[number])]
    cheapest = _cheapest(choices)
    if met:
        best = min(met, key=cheapest)
        return best, _reason(choices[best], target)
    lasting = [number for number in possible if not choices[number].is_too_long]
    if lasting and not target.is_given:
        fastest = min(lasting, key=lambda number: choices[number].seconds.high)
        return fastest, f"no choice is certain to finish within an hour; the fastest is {_named(choices[fastest])}"
    return None, _what_it_takes([choices[number] for number in possible], target)


def _cheapest(choices: Sequence[Choice]) -> Callable[[int], tuple]:
    """Return a key: dollars, with unknown ones last, then instances."""
    return lambda number: (
        choices[number].dollars is None,
        choices[number].dollars or 0.0,
        choices[number].instances,
        choices[number].seconds.mid,
    )


def _named(choice: Choice) -> str:
    return "here" if choice.where == LOCAL else choice.label


def _reason(choice: Choice, target: Target) -> str:
    if choice.where == LOCAL:
        when = "in time" if target.finish_by else "within an hour"
        return "run it here, which costs nothing" if target.budget else f"run it here: it finishes {when}, at no cost"
    if target.finish_by:
        return f"{choice.label} is the cheapest that is certain to finish by {clock(target.finish_by)}"
    if target.budget:
        return f"{choice.label} is the cheapest within ${format_dollars(target.budget)}"
    return f"{choice.label} is the cheapest that is certain to finish within an hour"


def _what_it_takes(choices: Sequence[Choice], target: Target) -> str:
    """Return what is possible, and what the target would need, as text."""
    if all(choice.is_too_long for choice in choices):
        return "no choice is certain to finish before the --deadline of its instances"
    in_time = [choice for choice in choices if replace(target, budget=None).is_met(choice)]
    in_budget = [choice for choice in choices if replace(target, finish_by=None).is_met(choice)]
    if in_time and in_budget:
        earliest = _minute_after(min(choice.late for choice in in_budget))
        priced = any(choice.most for choice in in_time)
        costs = f"costs at least ${_least(in_time)}" if priced else "needs instances whose price is unknown"
        return (
            f"finishing by {clock(target.finish_by)} {costs}; within ${format_dollars(target.budget)}, "
            f"it finishes by {earliest}"
        )
    parts = []
    if target.finish_by and not in_time:
        fastest = min(choices, key=lambda choice: choice.late)
        ends = f"the fastest, {_named(fastest)}, finishes by {_minute_after(fastest.late)}"
        parts.append(f"no choice is certain to finish by {clock(target.finish_by)}; {ends}")
    if target.budget and not in_budget:
        within = f"no cluster on EC2 is certain to cost ${format_dollars(target.budget)} or less"
        known = any(choice.most for choice in choices)
        parts.append(within + (f"; the cheapest may cost ${_least(choices)}" if known else ""))
    return "; ".join(parts)


def _minute_after(moment: float) -> str:
    """Return a time of day, rounded up so that it is late enough as a limit."""
    return clock(math.ceil(moment / 60) * 60)


def _least(choices: Sequence[Choice]) -> str:
    """Return the lowest amount that a choice may cost, rounded up to a cent so that it is enough as a budget."""
    least = min((choice.most for choice in choices if choice.most), default=0.0)
    return format_dollars(math.ceil(least * 100) / 100)
