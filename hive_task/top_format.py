"""Numbers and tables as they fit on a screen: the parts that `top_view.py` is put together from.

>>> [duration(seconds) for seconds in (0.0, 0.00012, 0.0123, 1.5, 75.0, 7260.0)]
['0', '120 µs', '12.3 ms', '1.5 s', '1 min 15 s', '2 h 1 min']
>>> shares([10, 2, 5], lines=17)
[6, 2, 3]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Cell = Text | str | int | float | None


def duration(seconds: float) -> str:
    """Three digits and a unit; from a minute on, the two largest units."""
    if seconds >= 60:
        whole = round(seconds)
        for size, large, small, step in ((86400, "d", "h", 3600), (3600, "h", "min", 60), (60, "min", "s", 1)):
            if whole >= size:
                return f"{whole // size} {large} {whole % size // step} {small}"
    if seconds <= 0:
        return "0"
    for unit, second in (("s", 1.0), ("ms", 1e3)):
        if seconds * second >= 0.9995:
            return f"{seconds * second:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds >= 1e-8 else "0"


def rate(number: float) -> str:
    """How often a second."""
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.2g}"


def text(value: object, style: str = "", width: int | None = None) -> Text:
    """Names come from a program: they must not move the cursor, or be taken for markup."""
    made = Text("".join(one if one.isprintable() else "?" for one in str(value)), style)
    if width is not None:
        made.truncate(width, overflow="ellipsis")
    return made


def flow(items: Iterable[Text], width: int, gap: int = 3) -> list[Text]:
    """Items one after the other, in as many lines as it takes."""
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + gap + item.cell_len <= width:
            lines[-1].append(" " * gap).append_text(item)
        else:
            lines.append(Text().append_text(item))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


@dataclass(frozen=True)
class Column:
    """`least`: the width of a screen from which on there is room for it. `wide`: takes what the others leave."""

    name: str
    least: int = 0
    wide: bool = False
    left: bool = False


@dataclass(frozen=True)
class Block:
    """A table: its name is the head of the first column. `rest`: what to say of rows for which there is no room."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    rest: str = "more"

    def shown(self, width: int, lines: int) -> RenderableType:
        """The table with at most so many lines below the head."""
        number = len(self.rows) if len(self.rows) <= lines else lines - 1
        table = self._table(width, number)
        left = len(self.rows) - number
        return Group(table, text(f"... {left} {self.rest}", "dim", width)) if left else table

    def _table(self, width: int, number: int) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="bold cyan")
        kept = [index for index, column in enumerate(self.columns) if column.least <= width]
        for index in kept:
            column = self.columns[index]
            table.add_column(
                column.name,
                justify="left" if column.left or column.wide else "right",
                ratio=1 if column.wide else None,
                max_width=None if column.wide else max(8, width // 4),
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in self.rows[:number]:
            table.add_row(*(_cell(row[index]) for index in kept))
        return table


def _cell(value: Cell) -> Text:
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("")
    if isinstance(value, int):
        return Text(f"{value:,}", "" if value else "dim")
    if isinstance(value, float):
        return Text(duration(value), "" if value else "dim")
    return text(value)


def shares(wanted: Sequence[int], lines: int, least: int = 3) -> list[int]:
    """Rows for each table, the first being the most important, where each has a head and an empty line besides.

    Each that has rows gets up to `least` of them, the first twice as many, as long as there is room, the important ones
    first; what is left is dealt out one by one. One line of several is not worth a head.
    """
    given = [0] * len(wanted)
    for index, rows in enumerate(wanted):
        need = min(rows, least if index else 2 * least, lines - 2)
        if need < min(rows, 2):
            break
        if need:
            given[index] = need
            lines -= need + 2
    while lines > 0 and any(0 < have < want for have, want in zip(given, wanted, strict=True)):
        for index, want in enumerate(wanted):
            if 0 < given[index] < want and lines > 0:
                given[index] += 1
                lines -= 1
    return given
