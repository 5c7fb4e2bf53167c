"""How figures are written: numbers short enough to compare at a glance, and figures laid out as tables.

Promise: whatever shows figures, on the terminal or in HTML, shows the same tables with the same digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.results import BarOutcome, Figure, Quantity, Spread


def number(value: float) -> str:
    """Three significant digits (four up to 9,999), and a letter for thousands (k) and millions (M)."""
    magnitude = abs(value)
    if magnitude >= 999_500:
        return _digits(value / 1e6) + "M"
    if magnitude >= 9_999.5:
        return _digits(value / 1e3) + "k"
    return _digits(value)


def _digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:,.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    if magnitude >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"


def count_of(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def with_spread(values: Spread) -> str:
    """The median, and behind it the extremes if they can be told from it."""
    median, low, high = map(number, values)
    return median if low == high == median else f"{median} [{low}..{high}]"


@dataclass(frozen=True)
class Table:
    """A heading, column titles and rows of text. The first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(figures: Iterable[Figure]) -> list[Table]:
    """A table for each quantity: settings one way, subjects and threads the other, whichever is the narrower."""
    by_quantity: dict[Quantity, list[Figure]] = {}
    for figure in figures:
        by_quantity.setdefault(figure.quantity, []).append(figure)
    return [_pivot(quantity, some) for quantity, some in by_quantity.items()]


def _pivot(quantity: Quantity, figures: Sequence[Figure]) -> Table:
    # Not if the setting says it already: the table would be twice as wide, and half of it empty.
    places = [(figure.setting, figure.subject) for figure in figures]
    show_threads = len(set(places)) < len(places)
    cells = {}
    for figure in figures:
        subject = f"{figure.subject}, {count_of(figure.threads, 'thread')}" if show_threads else figure.subject
        cells[figure.setting, subject] = with_spread(figure.spread)
    settings = list(dict.fromkeys(setting for setting, _ in cells))
    subjects = list(dict.fromkeys(subject for _, subject in cells))
    title = f"{quantity.name}, {quantity.unit}" if quantity.unit else quantity.name
    if len(subjects) <= len(settings):
        rows = [(setting, *(cells.get((setting, subject), "") for subject in subjects)) for setting in settings]
        return Table(title, ("", *subjects), tuple(rows))
    rows = [(subject, *(cells.get((setting, subject), "") for setting in settings)) for subject in subjects]
    return Table(title, ("", *settings), tuple(rows))


def table_of_bars(bars: Iterable[BarOutcome]) -> Table:
    rows = tuple(
        (bar.name, "" if bar.value is None else number(bar.value), bar.limit, bar.verdict, bar.where) for bar in bars
    )
    return Table("Bars", ("bar", "measured", "limit", "", "where"), rows)


def as_text(table: Table, indent: str = "  ") -> str:
    """The table in plain text, columns aligned."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    return "\n".join([table.title] + [(indent + "   ".join(map(str.ljust, line, widths))).rstrip() for line in lines])
