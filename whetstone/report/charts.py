"""The report's plots as Vega-Lite specifications. Colours are the page's CSS variables, so that a change of theme, or
printing, needs no second drawing; every plot is one view, whose width is that of the page's column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whetstone.report.changes import FLIPS

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
CONFIG = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": 500,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "labelFlush": False,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "orient": "top",
        "title": None,
        "labelFontSize": 12,
        "symbolType": "square",
        "columnPadding": 14,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--muted)"},
}
STRATEGY_COLOURS = ("var(--series-1)", "var(--series-2)", "var(--series-3)", "var(--series-4)", "var(--series-5)")
FLIP_COLOURS = ("var(--calm-right)", "var(--right)", "var(--wrong)", "var(--calm-wrong)")
PERCENT = {"format": ".0%", "tickCount": 5}
COLUMNS = {"expr": "width < 400 ? 2 : 5"}  # of a legend


def _chart(rows: Sequence[Mapping], description: str, height: float, **view: object) -> dict:
    return {
        "$schema": SCHEMA,
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(rows)},
        "config": CONFIG,
        **view,
    }


def _colour(names: Sequence[str], colours: Sequence[str], field: str, **legend: object) -> dict:
    scale = {"domain": list(names), "range": list(colours[: len(names)])}
    return {"field": field, "type": "nominal", "scale": scale, "legend": {"title": None, "columns": COLUMNS} | legend}


def progress(rows: Sequence[Mapping], order: Sequence[str]) -> dict:
    """Accuracy by checkpoint: rows {checkpoint, outcome, accuracy, low, high, label}; outcomes: first attempt, best
    single strategy, any strategy."""
    outcomes = ["any strategy (oracle)", "first attempt", "best single strategy"]
    colour = _colour(outcomes, ("var(--series-3)", "var(--accent)", "var(--series-2)"), "outcome")
    x = {
        "field": "checkpoint",
        "type": "nominal",
        "sort": list(order),
        "title": None,
        "axis": {"labelAngle": 0, "labelFontSize": 13, "labelColor": "var(--ink)"},
    }
    y = {"field": "accuracy", "type": "quantitative", "title": None, "scale": {"domain": [0, 1]}, "axis": PERCENT}
    tooltip = [
        {"field": "checkpoint"},
        {"field": "outcome"},
        {"field": "accuracy", "format": ".1%"},
        {"field": "low", "format": ".1%"},
        {"field": "high", "format": ".1%"},
    ]
    layers = [
        *(
            {
                "transform": [{"filter": {"field": "outcome", "equal": outcome}}],
                "mark": {"type": "line", "strokeWidth": 2, "strokeDash": dash},
                "encoding": {"x": x, "y": y, "color": colour},
            }
            for outcome, dash in zip(outcomes, ([2, 4], [1, 0], [6, 4]), strict=True)
        ),
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
        },
        {
            "transform": [{"filter": "datum.outcome == 'first attempt'"}],
            "mark": {"type": "text", "dy": 20, "fontSize": 13, "fontWeight": 600, "align": "left", "dx": 4},
            "encoding": {"x": x, "y": y, "text": {"field": "accuracy", "format": ".1%"}},
        },
    ]
    return _chart(rows, "Accuracy by checkpoint with 95 % intervals", 300, layer=layers)


def choices(rows: Sequence[Mapping], strategies: Sequence[str], families: Sequence[str], title: str) -> dict:
    """Shares of first choices by family: rows {family, strategy, share, right, problems}."""
    names = [*strategies, *(["none"] if any(row["strategy"] == "none" for row in rows) else [])]
    return _chart(
        rows,
        f"Strategies that {title} chooses first, by family",
        20 * len(families),
        mark={"type": "bar", "height": {"band": 0.78}},
        encoding={
            "y": {"field": "family", "type": "nominal", "sort": list(families), "title": None},
            "x": {
                "field": "share",
                "type": "quantitative",
                "title": None,
                "axis": PERCENT,
                "scale": {"domain": [0, 1]},
            },
            "color": _colour(names, STRATEGY_COLOURS, "strategy", columns=len(names)),
            "order": {"field": "strategy", "sort": "ascending"},
            "tooltip": [
                {"field": "family"},
                {"field": "strategy"},
                {"field": "share", "format": ".0%", "title": "chosen first in"},
                {"field": "right", "format": ".0%", "title": "right when chosen"},
                {"field": "problems"},
            ],
        },
    )


def moved(rows: Sequence[Mapping], title: str) -> dict:
    """Problems by how the choice moved and what came of it: rows {before, after, flip, problems}."""
    rows = [{**row, "move": f"{row['before']} → {row['after']}", "rank": FLIPS.index(row["flip"])} for row in rows]
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["move"]] = totals.get(row["move"], 0) + row["problems"]
    order = sorted(totals, key=lambda move: (-totals[move], move))
    return _chart(
        rows,
        f"How the choice moved, {title}",
        26 * len(order),
        mark={"type": "bar", "height": {"band": 0.74}},
        encoding={
            "y": {"field": "move", "type": "nominal", "sort": order, "title": None},
            "x": {
                "field": "problems",
                "type": "quantitative",
                "title": "problems",
                "axis": {"tickMinStep": 1, "tickCount": 6},
            },
            "color": _colour(FLIPS, FLIP_COLOURS, "flip"),
            "order": {"field": "rank"},
            "tooltip": [{"field": "move"}, {"field": "flip"}, {"field": "problems"}],
        },
    )


def flipped(rows: Sequence[Mapping], title: str) -> dict:
    """Newly right to the right, newly wrong to the left, by family: rows {family, flip, problems}."""
    signed = [{**row, "signed": row["problems"] * (1 if row["flip"] == "newly right" else -1)} for row in rows]
    net: dict[str, int] = {}
    for row in signed:
        net[row["family"]] = net.get(row["family"], 0) + row["signed"]
    order = sorted(net, key=lambda name: (-net[name], name))
    colour = _colour(["newly wrong", "newly right"], ("var(--wrong)", "var(--right)"), "flip")
    return _chart(
        signed,
        f"Problems that flipped, by family, {title}",
        20 * len(order),
        mark={"type": "bar", "height": {"band": 0.78}},
        encoding={
            "y": {"field": "family", "type": "nominal", "sort": order, "title": None},
            "x": {
                "field": "signed",
                "type": "quantitative",
                "title": "problems",
                "axis": {"labelExpr": "abs(datum.value)", "tickMinStep": 1, "tickCount": 7},
            },
            "color": colour,
            "tooltip": [{"field": "family"}, {"field": "flip"}, {"field": "problems"}],
        },
    )


def control(rows: Sequence[Mapping], order: Sequence[str], title: str) -> dict:
    """Accuracy of the same weights by how the strategy is chosen: rows {control, value, low, high, own}."""
    y = {
        "field": "control",
        "type": "nominal",
        "sort": list(order),
        "title": None,
        "axis": {"labelLimit": 240, "labelColor": "var(--ink)"},
    }
    x = {"field": "value", "type": "quantitative", "title": None, "scale": {"domain": [0, 1]}, "axis": PERCENT}
    colour = {"condition": {"test": "datum.own", "value": "var(--accent)"}, "value": "var(--muted)"}
    numbers = [{"field": name, "format": ".1%"} for name in ("value", "low", "high")]
    layers = [
        {
            "mark": {"type": "rule", "strokeWidth": 3, "strokeCap": "round"},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"y": y, "x": x, "color": colour, "tooltip": [{"field": "control"}, *numbers]},
        },
        {
            "mark": {"type": "text", "dy": -11, "fontSize": 11},
            "encoding": {"y": y, "x": x, "text": {"field": "value", "format": ".1%"}},
        },
    ]
    return _chart(
        rows, f"Ways to choose with the weights of {title}", 34 * len(order), layer=layers, padding={"right": 24}
    )


def curve(rows: Sequence[Mapping], field: str, title: str, chosen: int, dev: Mapping[str, float]) -> dict:
    """A training curve: rows with step and `field`, a running mean over it; accuracy on dev where checkpoints were
    measured, the chosen step marked."""
    window = max(1, len(rows) // 20)
    x = {"field": "step", "type": "quantitative", "title": "step", "axis": {"grid": False, "tickMinStep": 1}}
    y = {"field": field, "type": "quantitative", "title": None, "axis": {"tickCount": 5}}
    smooth = {"window": [{"op": "mean", "field": field, "as": "smooth"}], "frame": [-window, window]}
    layers = [
        {
            "mark": {"type": "line", "color": "var(--accent)", "opacity": 0.3, "strokeWidth": 1},
            "encoding": {"x": x, "y": y},
        },
        {
            "transform": [smooth],
            "mark": {"type": "line", "color": "var(--accent)", "strokeWidth": 2},
            "encoding": {
                "x": x,
                "y": {**y, "field": "smooth"},
                "tooltip": [{"field": "step"}, *({"field": name, "format": ".4f"} for name in (field, "smooth"))],
            },
        },
    ]
    if dev:
        points = [{"step": int(step), "dev": value, "chosen": int(step) == chosen} for step, value in dev.items()]
        layers.append(
            {
                "data": {"values": points},
                "mark": {"type": "rule", "strokeDash": [3, 3], "opacity": 0.6},
                "encoding": {"x": {**x, "field": "step"}},
            }
        )
        layers.append(
            {
                "data": {"values": points},
                "mark": {"type": "text", "align": "right", "baseline": "top", "dx": -5, "fontSize": 11},
                "encoding": {
                    "x": {**x, "field": "step"},
                    "y": {"value": 2},
                    "text": {"field": "dev", "format": ".1%"},
                    "opacity": {"condition": {"test": "datum.chosen", "value": 1}, "value": 0.7},
                },
            }
        )
    return _chart(rows, title, 200, layer=layers)
