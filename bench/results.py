"""The records that a run leaves: what the JSON holds, and all that the report and the comparison may use.

Promise: `Run.from_json(run.to_json()) == run`, so whatever can be shown right after a run can be shown from its file.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

#: Changes with the shape of the JSON, so that `compare` refuses what it would misread.
FORMAT = 1

Better = Literal["higher", "lower", ""]


class Spread(NamedTuple):
    """The median of some repeats, and their extremes."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum, maximum. Repeats are few, so the extremes say more than quartiles of five values would."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Quantity:
    """Something measured: its name, its unit, and which direction is an improvement ("" where neither is)."""

    name: str
    unit: str
    better: Better


class Key(NamedTuple):
    """What makes two figures of different runs the same figure."""

    workload: str
    setting: str
    subject: str
    threads: int
    quantity: str


@dataclass(frozen=True)
class Figure:
    """One quantity of one subject (a variant, or a ratio such as "stm / lock") in one setting: a value per repeat."""

    setting: str
    subject: str
    threads: int
    quantity: Quantity
    values: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        return spread(self.values)

    def key(self, workload: str) -> Key:
        return Key(workload, self.setting, self.subject, self.threads, self.quantity.name)

    def to_json(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "subject": self.subject,
            "threads": self.threads,
            "quantity": self.quantity.name,
            "unit": self.quantity.unit,
            "better": self.quantity.better,
            **self.spread._asdict(),  # for other readers; `from_json` computes it again
            "values": list(self.values),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Figure:
        quantity = Quantity(data["quantity"], data["unit"], data["better"])
        return cls(data["setting"], data["subject"], data["threads"], quantity, tuple(data["values"]))


@dataclass(frozen=True)
class Series:
    """One line, or one colour of bars: a spread for each of the chart's categories, `None` where there is none."""

    label: str
    points: tuple[Spread | None, ...]


@dataclass(frozen=True)
class Chart:
    """A plot, described. Categories are spaced evenly, so sizes that grow by factors look logarithmic."""

    title: str
    x_label: str
    y_label: str
    categories: tuple[str, ...]
    series: tuple[Series, ...]
    kind: Literal["line", "bar"] = "line"
    y_log: bool = False
    #: A horizontal line to compare with.
    mark: float | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Chart:
        series = tuple(
            Series(one["label"], tuple(None if point is None else Spread(*point) for point in one["points"]))
            for one in data["series"]
        )
        return cls(**{**data, "categories": tuple(data["categories"]), "series": series})

    def to_json(self) -> dict[str, Any]:
        series = [{"label": one.label, "points": list(one.points)} for one in self.series]
        return {**vars(self), "categories": list(self.categories), "series": series}


@dataclass(frozen=True)
class Result:
    """What one workload came to. `broken` says which invariant broke, and is empty if all held.

    `skipped` says why nothing was measured here, and is empty otherwise; `unmeasured` says it of single subjects.
    """

    workload: str
    shows: str
    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...] = ()
    findings: tuple[str, ...] = ()
    broken: str = ""
    seconds: float = 0.0
    skipped: str = ""
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        figures = [figure.to_json() for figure in self.figures]
        charts = [chart.to_json() for chart in self.charts]
        return {**vars(self), "figures": figures, "charts": charts, "findings": list(self.findings)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        figures = tuple(map(Figure.from_json, data["figures"]))
        charts = tuple(map(Chart.from_json, data["charts"]))
        return cls(**{**data, "figures": figures, "charts": charts, "findings": tuple(data["findings"])})


@dataclass(frozen=True)
class BarOutcome:
    """A bar that was tried: the measured value, the limit, and whether it was met.

    The value is `None` where nothing could be measured, for the reason that then stands in `where`.
    """

    name: str
    value: float | None
    limit: str
    met: bool
    where: str

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.met else "MISSED"


@dataclass(frozen=True)
class Run:
    """Everything one interpreter measured."""

    environment: dict[str, Any]
    options: dict[str, Any]
    results: tuple[Result, ...]
    bars: tuple[BarOutcome, ...]

    @property
    def label(self) -> str:
        return str(self.environment["label"])

    def to_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "options": self.options,
            "workloads": [result.to_json() for result in self.results],
            "bars": [{**vars(bar), "verdict": bar.verdict} for bar in self.bars],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        names = BarOutcome.__dataclass_fields__
        bars = tuple(BarOutcome(**{name: bar[name] for name in names}) for bar in data["bars"])
        return cls(data["environment"], data["options"], tuple(map(Result.from_json, data["workloads"])), bars)


def to_document(runs: Sequence[Run]) -> dict[str, Any]:
    """The JSON document of several runs."""
    return {"format": FORMAT, "runs": [run.to_json() for run in runs]}


def from_document(document: Any) -> tuple[Run, ...]:
    """The runs of a document. `ValueError` if it isn't one of ours."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"not a bench report of format {FORMAT}")
    try:
        return tuple(map(Run.from_json, document["runs"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a damaged bench report ({error!r})") from None
