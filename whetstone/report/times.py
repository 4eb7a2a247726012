"""The run's own page: how long each stage took, on what machine and with which versions, from the manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whetstone.report.page import environment


def duration(seconds: float) -> str:
    """3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rows(records: Mapping[str, Mapping | None]) -> list[dict]:
    """One row for each stage: {stage, seconds, time, rows, dropped, tokens, device, started, revision}; of a stage
    without a manifest (restored from a cache, or never run) everything but its name is None."""
    made = []
    for stage, record in records.items():
        if record is None:
            made.append({"stage": stage, "seconds": None})
            continue
        git, dropped = record["git"], record["rows"]["dropped"]
        made.append(
            {
                "stage": stage,
                "seconds": record["seconds"],
                "time": duration(record["seconds"]),
                "rows": (record["rows"]["in"], record["rows"]["out"]),
                "dropped": {name: n for name, n in dropped.items() if n},
                "tokens": sum(n or 0 for n in record["tokens"].values()) or None,
                "device": record["device"],
                "started": record["started"],
                "revision": (git["revision"] or "?")[:8] + (" with edits" if git["dirty"] else ""),
            }
        )
    return made


def versions(records: Sequence[Mapping | None]) -> dict[str, list[str]]:
    """Package to the versions that the stages ran with: one, unless they ran at different times."""
    found: dict[str, set] = {}
    for record in records:
        for name, version in (record or {}).get("packages", {}).items():
            found.setdefault(name, set()).add(version)
    return {name: sorted(found[name]) for name in sorted(found)}


def html(records: Mapping[str, Mapping | None]) -> str:
    """The page, from the manifests by stage in the pipeline's order."""
    table = rows(records)
    known = [row for row in table if row["seconds"] is not None]
    return (
        environment()
        .get_template("times.html")
        .render(
            rows=table,
            known=len(known),
            total=duration(sum(row["seconds"] for row in known)),
            longest=max((row["seconds"] for row in known), default=1) or 1,
            versions=versions(list(records.values())),
            devices=sorted({row["device"] for row in known}),
        )
    )
