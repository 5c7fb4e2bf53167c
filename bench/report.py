"""The HTML report: one file that needs nothing else, neither a network nor a neighbour.

Promise: the file contains no address of another resource. Plots are SVG inside the page, drawn by matplotlib; where
that isn't installed the report has its tables and says what is missing.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench.environment import BUSY, disturbance
from bench.results import Chart, Run
from bench.tables import Table, table_of_bars, tables_of

NO_PLOTS: Final = "Plots need matplotlib, which is not installed: pip install 'hive-task[bench]'."

#: Told apart by people who don't tell red from green, too (Okabe and Ito's colours, without the palest).
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#000000")
MARKERS: Final = "osD^vPXh"

STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 76rem;
       margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; } h2 { margin: 3rem 0 0; border-top: 2px solid #ddd; padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
.shows { font-size: 1.05rem; margin-top: .2rem; color: #444; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
.charts figure { margin: .8rem 0; flex: 0 1 36rem; } figcaption { font-weight: 600; color: #555; }
 .charts svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e4e4e4; text-align: left; white-space: nowrap; }
th { color: #555; font-weight: 600; } small { color: #777; }
.missed { color: #b00020; font-weight: 700; } .met { color: #1b6e3c; }
.broken { background: #b00020; color: #fff; padding: .6rem 1rem; font-weight: 700; }
nav a { margin-right: .8rem; } details summary { cursor: pointer; color: #555; margin: .5rem 0; }
"""


class NoPlotsError(ImportError):
    """matplotlib isn't there."""


def plotting() -> Any:
    """matplotlib's `Figure`, which draws without a display and without global state."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlotsError(NO_PLOTS) from None
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and can be searched
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    return Figure


def as_svg(chart: Chart, prefix: str) -> str:
    """The chart as an `<svg>` element. `prefix` keeps its identifiers apart from those of others in the page."""
    figure = plotting()(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    if chart.kind == "line":
        _draw_lines(axes, chart)
    else:
        _draw_bars(axes, chart)
    if chart.mark is not None:
        axes.axhline(chart.mark, color="#888888", linewidth=1, linestyle="--", zorder=1)
    if chart.y_log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: _tick(value))
    axes.set_title(chart.title, loc="left", fontsize=11)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_xticks(range(len(chart.categories)), [label.replace(", ", ",\n") for label in chart.categories])
    axes.grid(axis="y", color="#e8e8e8")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if any(one.label for one in chart.series):
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return embeddable(target.getvalue(), prefix)


def _draw_lines(axes: Any, chart: Chart) -> None:
    for index, one in enumerate(chart.series):
        known = [(x, point) for x, point in enumerate(one.points) if point is not None]
        if known:
            xs = [x for x, _ in known]
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(
                xs,
                [point.median for _, point in known],
                color=colour,
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                label=one.label,
            )
            lows, highs = ([getattr(point, end) for _, point in known] for end in ("low", "high"))
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.18, linewidth=0)


def _draw_bars(axes: Any, chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    for index, one in enumerate(chart.series):
        known = [(x, point) for x, point in enumerate(one.points) if point is not None]
        if known:
            axes.bar(
                [x + (index - (len(chart.series) - 1) / 2) * width for x, _ in known],
                [point.median for _, point in known],
                width * 0.92,
                yerr=[
                    [point.median - point.low for _, point in known],
                    [point.high - point.median for _, point in known],
                ],
                color=COLOURS[index % len(COLOURS)],
                error_kw={"linewidth": 0.8, "ecolor": "#444444"},
                capsize=2,
                label=one.label or None,
            )


def _tick(value: float) -> str:
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def embeddable(svg: str, prefix: str) -> str:
    """Only the element: no prolog, no metadata, no namespaces (HTML knows them), and identifiers of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    return svg.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')


def as_html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in table.rows)
    return (
        f'<div class="scroll"><table><caption>{html.escape(table.title)}</caption>\n'
        f"<tr>{head}</tr>\n{rows}</table></div>\n"
    )


def _cell(text: str) -> str:
    if text in ("met", "MISSED"):
        return f'<td class="{text.lower()}">{text}</td>'
    value, bracket, range_of_repeats = html.escape(text).partition(" [")
    return f"<td>{value}{f' <small>[{range_of_repeats}</small>' if bracket else ''}</td>"


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    names = list(dict.fromkeys(result.workload for run in runs for result in run.results))
    links = "".join(f'<a href="#{name}">{name}</a>' for name in names)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>STM and locks, measured</title><style>{STYLE}</style></head><body>\n"
        f"<h1>STM and locks, measured</h1>\n<nav>{links}</nav>\n"
        + "".join(_broken(runs))
        + as_html(_places(runs))
        + "<p>Every figure is the median over interleaved repeats, followed by their [minimum..maximum]; ratios are "
        "taken within each repeat. In the plots, bands and whiskers reach from the minimum to the maximum.</p>\n"
        + "".join(_bars(runs))
        + "".join(part for name in names for part in _section(name, runs))
        + "</body></html>\n"
    )


def _broken(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for result in run.results:
            if result.broken:
                text = html.escape(f"{result.workload} is BROKEN on {run.label}: {result.broken}")
                yield f'<p class="broken">{text}</p>\n'


def _places(runs: Sequence[Run]) -> Table:
    rows = tuple(
        (
            run.label,
            "on" if run.environment["gil"] else "off",
            str(run.environment["cores"]),
            f"{run.environment['others']:g}",
            run.environment["platform"],
            run.environment["library"],
            f"{run.options['repeats']}, scale {run.options['scale']:g}",
            run.environment["date"],
        )
        for run in runs
    )
    return Table(
        "Where", ("interpreter", "GIL", "cores", "busy with others", "platform", "library", "repeats", "date"), rows
    )


def _bars(runs: Sequence[Run]) -> Iterator[str]:
    if any(run.bars for run in runs):
        yield "<h2>Bars</h2>\n"
    for run in runs:
        if run.bars:
            if run.environment["others"] > BUSY:
                yield f"<p>{html.escape(run.label)}: {html.escape(disturbance(run.environment['others']))}</p>\n"
            table = table_of_bars(run.bars)
            yield as_html(Table(run.label, table.columns, table.rows))


def _section(name: str, runs: Sequence[Run]) -> Iterator[str]:
    results = [(run, result) for run in runs for result in run.results if result.workload == name]
    yield f'<h2 id="{name}">{name}</h2>\n<p class="shows">{html.escape(results[0][1].shows)}</p>\n'
    # The same charts of several interpreters side by side, then what they say, then all their figures.
    for number in range(max(len(result.charts) for _, result in results)):
        of_all = [(run, result.charts[number]) for run, result in results if number < len(result.charts)]
        yield _charts(of_all, f"{name}-{number}")
    for run, result in results:
        yield f"<h3>{html.escape(run.label)}</h3>\n"
        if result.findings:
            yield "<ul>" + "".join(f"<li>{html.escape(finding)}</li>" for finding in result.findings) + "</ul>\n"
        yield "<details><summary>All figures</summary>\n"
        yield from map(as_html, tables_of(result.figures))
        yield "</details>\n"


def _charts(charts: Sequence[tuple[Run, Chart]], prefix: str) -> str:
    try:
        drawn = [as_svg(chart, f"{prefix}-{number}") for number, (_, chart) in enumerate(charts)]
    except NoPlotsError as missing:
        return f"<p><small>{html.escape(str(missing))}</small></p>\n"
    figures = (
        f"<figure><figcaption>{html.escape(run.label)}</figcaption>{svg}</figure>\n"
        for (run, _), svg in zip(charts, drawn, strict=True)
    )
    return f'<div class="charts">{"".join(figures)}</div>\n'
