"""The sections of the report: what the templates show, as plain data, and the plots drawn on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from whetstone.prompts.strategies import STRATEGIES
from whetstone.report import changes, charts, story, tables
from whetstone.report.heat import heat_map, link
from whetstone.report.summary import BASE

TITLES = {BASE: "base, best single", changes.UNTAUGHT: "base, untaught"}
CONTROLS = {
    "random": "any, at random",
    "drawn": "drawn as it believes",
    "best single": "always the best single",
    "best of family": "best of the family, in hindsight",
    "first attempt": "its own choice",
    "oracle": "any that works (oracle)",
}


def title(label: str) -> str:
    return TITLES.get(label, label)


def choosers(checkpoints: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of models that choose, one after the other, from the untaught base model on."""
    return list(zip([changes.UNTAUGHT, *checkpoints[:-1]], checkpoints, strict=True))


def comparisons(checkpoints: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs whose outcomes are compared: the base model by its best single strategy, then each checkpoint."""
    return [(BASE, checkpoints[0]), *choosers(checkpoints)[1:]]


def flip_filter(old: str, new: str) -> str:
    """The viewer's name for how outcomes flipped."""
    return f"{title(old)} → {new}"


def move_filter(old: str, new: str) -> str:
    """The viewer's name for how choices moved."""
    return f"choice, {title(old)} → {new}"


class Drawings(dict):
    """The page's charts by name; adding one gives the name."""

    def draw(self, spec: dict) -> str:
        name = f"chart-{len(self) + 1}"
        self[name] = spec
        return name


def dataset_section(
    summary: Mapping,
    dataset: str,
    checkpoints: Sequence[str],
    attempts: Mapping[str, pd.DataFrame],
    problems: pd.DataFrame,
    rows: Sequence[Mapping],
    drawn: Drawings,
) -> dict:
    """What the page shows of one evaluation set; `attempts` by checkpoint, with the untaught base model's."""
    first = {label: changes.firsts(own, label) for label, own in attempts.items()}
    strategies = list(summary[BASE]["forced"])
    heats = [heat for group in ("family", "level") if (heat := heat_map(rows, dataset, group, checkpoints))]
    families = [row["name"] for row in heats[0]["body"]] if heats and heats[0]["group"] == "family" else []
    steps, flips = choosers(checkpoints), comparisons(checkpoints)
    return {
        "name": dataset,
        "tiles": story.tiles(summary, checkpoints[-1]),
        "sentences": story.sentences(summary, dataset, checkpoints),
        "progress": drawn.draw(charts.progress(_progress(summary, checkpoints), ["base", *checkpoints])),
        "heats": heats,
        "choices": [
            {"title": title(label), "chart": drawn.draw(charts.choices(shares, strategies, families, title(label)))}
            for label in (changes.UNTAUGHT, *checkpoints)
            if families and (shares := changes.choice_shares(first[label], problems, strategies))
        ],
        "moves": [_moved(first, old, new, dataset, drawn) for old, new in steps],
        "flips": [_flipped(first, old, new, problems, dataset, drawn) for old, new in flips],
        "example": _example(first, flips, attempts, problems),
        "controls": [_controls(attempts[label], problems, label, drawn) for label in checkpoints],
        "tables": {
            "headline": tables.headline(summary, dataset, checkpoints),
            "comparisons": tables.comparisons(summary, dataset),
            "strategies": tables.strategies(summary, dataset, checkpoints),
            "retries": tables.retries(summary, dataset, checkpoints),
        },
    }


def _progress(summary: Mapping, checkpoints: Sequence[str]) -> list[dict]:
    base = summary[BASE]
    outcomes = ("any strategy (oracle)", "first attempt", "best single strategy")
    found = {"base": (base["oracle"], base["zero_shot"]["first_attempt"], base["best_single"])}
    found |= {
        label: (summary[label]["oracle"], summary[label]["first_attempt"], summary[label]["best_single"])
        for label in checkpoints
    }
    return [
        {"checkpoint": label, "outcome": outcome, **{key: one[key] for key in ("accuracy", "low", "high")}}
        for label, three in found.items()
        for outcome, one in zip(outcomes, three, strict=True)
    ]


def _moved(first: Mapping, old: str, new: str, dataset: str, drawn: Drawings) -> dict:
    rows = changes.moves(first[old], first[new])
    changed = sum(row["problems"] for row in rows if row["before"] != row["after"])
    heading = f"{title(old)} → {new}"
    table = tables.Table(
        heading,
        "",
        ["chosen before", "chosen after", *changes.FLIPS],
        [
            [before, after, *(str(own.get(flip, 0)) for flip in changes.FLIPS)]
            for (before, after), own in pd.DataFrame(rows)
            .pivot(index=["before", "after"], columns="flip", values="problems")
            .fillna(0)
            .astype(int)
            .to_dict("index")
            .items()
        ],
    )
    return {
        "title": heading,
        "changed": changed,
        "links": [
            {
                "move": move,
                "problems": int(n),
                "link": link(**{"split": dataset, move_filter(old, new): move, "model": new, "turn": "1"}),
            }
            for move, n in changes.moved(first[old], first[new]).value_counts().sort_index().items()
        ],
        "problems": len(first[new]),
        "chart": drawn.draw(charts.moved(rows, heading)),
        "table": table,
    }


def _flipped(first: Mapping, old: str, new: str, problems: pd.DataFrame, dataset: str, drawn: Drawings) -> dict:
    named, heading = changes.flips(first[old], first[new]), f"{title(old)} → {new}"
    rows = changes.by_family(named, problems)
    return {
        "title": heading,
        "counts": [
            {
                "flip": flip,
                "problems": int((named == flip).sum()),
                "link": link(**{"split": dataset, flip_filter(old, new): flip, "model": new, "turn": "1"}),
            }
            for flip in changes.FLIPS
        ],
        "chart": drawn.draw(charts.flipped(rows, heading)) if rows else None,
    }


def _controls(attempts: pd.DataFrame, problems: pd.DataFrame, label: str, drawn: Drawings) -> dict:
    found = changes.controls(attempts, problems)
    rows = [{"control": CONTROLS[name], "own": name == "first attempt", **one} for name, one in found.items()]
    cells = [[CONTROLS[name], tables.percent({"accuracy": one["value"], **one})] for name, one in found.items()]
    return {
        "title": label,
        "chart": drawn.draw(charts.control(rows, [CONTROLS[name] for name in found], label)),
        "table": tables.Table(label, "", ["the strategy is", "accuracy, percent (95 %)"], cells),
    }


def _example(
    first: Mapping, flips: Sequence[tuple[str, str]], attempts: Mapping, problems: pd.DataFrame
) -> dict | None:
    """One problem that came right because another strategy was chosen, before and after."""
    for old, new in reversed(flips):
        pair = changes.example(first[old], first[new], attempts)
        if pair:
            rows = pd.concat([attempts[old], attempts[new]]).set_index("id").loc[list(pair)]
            problem = problems.set_index("id").loc[rows["problem_id"].iloc[0]]
            sides = [
                {
                    "title": title(label),
                    "strategy": STRATEGIES[row["strategy"]].title if row["strategy"] in STRATEGIES else "no strategy",
                    "text": row["text"].strip(),
                    "answer": row["answer"],
                    "right": row["verdict"] == "correct",
                    "link": link(at=name),
                }
                for label, (name, row) in zip((old, new), rows.iterrows(), strict=True)
            ]
            return {"question": problem["question"], "gold": problem["answer"], "sides": sides}
    return None


def training_section(epoch: str, trainer: str, curve: pd.DataFrame, trained: Mapping, drawn: Drawings) -> dict:
    """The curves of one epoch's training: the loss, and for preferences the margin of the rewards."""
    shown = [("loss", f"loss of {epoch}")]
    shown += [("reward_margin", f"reward margin of {epoch}")] if "reward_margin" in curve else []
    rows = curve.astype(object).where(curve.notna(), None).to_dict("records")
    return {
        "epoch": epoch,
        "trainer": trainer,
        "trained": trained,
        "charts": [
            {
                "title": heading,
                "chart": drawn.draw(
                    charts.curve(
                        [{"step": row["step"], name: row[name]} for row in rows],
                        name,
                        heading,
                        trained["chosen_step"],
                        trained["dev"] if name == "loss" else {},
                    )
                ),
            }
            for name, heading in shown
        ],
    }
