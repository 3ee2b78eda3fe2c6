"""What the figures say: ratios within one round, their median and spread, and whether the target is reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.benchmarks.sink import Ledger

Figures = dict[str, Any]


class Run(NamedTuple):
    """One process: its figures, and what the sink received from it (None when nothing was to be shipped)."""

    figures: Figures
    ledger: Ledger | None

    @property
    def fault(self) -> str:
        """What the ledger holds against the figures, or an empty text."""
        if self.ledger is None:
            return ""
        emitted = self.figures["emitted"]
        found = self.ledger
        if (found.distinct, found.duplicates, found.wrong_length) == (emitted, 0, 0):
            return ""
        return (
            f"of {emitted} records {emitted - found.distinct} did not arrive, {found.duplicates} twice, "
            f"{found.wrong_length} with another length"
        )


class Spread(NamedTuple):
    """The median of several rounds, and their extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the spread of *values*, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))


class Runs:
    """All runs of one benchmark, by what was measured and of whom, in the order of the rounds."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], dict[int, Run]] = {}

    def add(self, what: str, who: str, round_number: int, run: Run) -> None:
        """Keeps a run."""
        self._runs.setdefault((what, who), {})[round_number] = run

    def last(self, what: str, who: str) -> Run | None:
        """Returns the newest run of its kind, or None."""
        runs = self._runs.get((what, who))
        return runs[max(runs)] if runs else None

    def who(self, what: str) -> list[str]:
        """Returns of whom *what* was measured."""
        return [who for measured, who in self._runs if measured == what]

    def spread(self, what: str, who: str, figure: str) -> Spread | None:
        """Returns the spread of one figure, or None when it was not measured."""
        runs = self._runs.get((what, who))
        return Spread.of([run.figures[figure] for run in runs.values()]) if runs else None

    def ratio(self, what: str, who: str, figure: str, base: tuple[str, str]) -> Spread | None:
        """
        Returns the spread of the ratio to *base* (what, who), or None when one of them was not measured.

        Each ratio is of two runs of the same round, which lie seconds apart: the machine's slow minutes cancel out.
        """
        runs, others = self._runs.get((what, who), {}), self._runs.get(base, {})
        rounds = runs.keys() & others.keys()
        ratios = [runs[number].figures[figure] / others[number].figures[figure] for number in rounds]
        return Spread.of(ratios) if ratios else None

    def faults(self) -> dict[tuple[str, str], str]:
        """Returns what the ledger holds against whom, by what was measured and of whom."""
        return {key: run.fault for key, runs in self._runs.items() for run in runs.values() if run.fault}

    def as_json(self) -> list[dict[str, Any]]:
        """Returns every run, for other tools to read."""
        return [
            {
                "measure": what,
                "contender": who,
                "round": number,
                "figures": run.figures,
                "ledger": None if run.ledger is None else run.ledger._asdict(),
            }
            for (what, who), runs in self._runs.items()
            for number, run in runs.items()
        ]


class Target(NamedTuple):
    """
    One row of the table: a figure, what it is held against, and where it must be.

    Args:
        text: what is measured, in words.
        against: the other side, in words.
        what, who, figure: which of the runs; see `Runs`.
        limit: the target.
        base: what and whom to divide by; None when the figure itself has the target.
        at_least: whether more is better.
        unit: of the figure itself.
    """

    text: str
    against: str
    what: str
    who: str
    figure: str
    limit: float
    base: tuple[str, str] | None = None
    at_least: bool = False
    unit: str = " x"

    def value(self, runs: Runs) -> Spread | None:
        """Returns where the figure or the ratio lies, or None when it was not measured."""
        if self.base is None:
            return runs.spread(self.what, self.who, self.figure)
        return runs.ratio(self.what, self.who, self.figure, self.base)

    def is_reached(self, value: Spread) -> bool:
        """Returns whether the median is on the right side."""
        return value.median >= self.limit if self.at_least else value.median <= self.limit

    @property
    def limit_text(self) -> str:
        """The target as the table shows it."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a text table, which is a Markdown table too; columns of figures are aligned to the right."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    is_figure = [all(row[column][:1] in "0123456789+-" for row in rows) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_figure, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rules = ("-" * (width - right) + ":" * right for width, right in zip(widths, is_figure, strict=True))
    return "\n".join([line(headings), f"| {' | '.join(rules)} |", *map(line, rows)])
