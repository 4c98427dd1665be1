"""The rows of the tables, and the bars, of a comparison with other libraries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks.common import ALL
from experiments.benchmarks.comparison.entry import (
    DEFAULT_JOB,
    OWN,
    SHORT_JOB,
    SPACES,
    Entry,
    quality,
)
from experiments.common import show
from oipjax.plots import BLUE

GREY = "#B8B8B8"
BATCHED = ("best", "fastest")
"""The settings in which a peer climbs all maps in each round."""

Row = dict[str, Any]


def show_rows(title: str, rows: Sequence[Row], hidden: Sequence[str] = ()) -> None:
    """Print rows that have the same columns, without those that are ``hidden``."""
    columns = [name for name in rows[0] if name not in hidden]
    show(title, columns, [[row[name] for name in columns] for row in rows])


def show_failures(installed: Sequence[Row]) -> None:
    """Print the contenders that could not be started, if there are any."""
    failures = []
    for row in installed:
        if "failed" in row:
            failures.append({"contender": row["contender"], "why": row["failed"]})
    if failures:
        show_rows("not compared", failures)


def rate_rows(entries: Sequence[Entry]) -> list[Row]:
    """Image-steps per second of each ascent, beside oipjax's in the same space and round."""
    ascents = [entry for entry in entries if not entry.is_job]
    own = {entry.contender.space: entry for entry in ascents if entry.is_own}
    return [_rate_row(entry, own[entry.contender.space]) for entry in ascents]


def _rate_row(entry: Entry, own: Entry) -> Row:
    steady = entry.rates(steady=True)
    ratios = own.rates(steady=True) / steady
    return {
        "contender": entry.contender.name,
        "how": entry.how,
        "setting": "" if entry.setting == entry.how else entry.setting,
        "batch": entry.batch if entry.batch < ALL else None,
        "steps": entry.steps,
        "image-steps/s": round(float(np.median(entry.rates(steady=False)))),
        "steady": round(float(np.median(steady))),
        "before first step, s": float(np.median(entry.overheads)),
        "oipjax is times": float(np.median(ratios)),
        "ratios": ratios.tolist(),
    }


def job_rows(entries: Sequence[Entry], maps: int) -> list[Row]:
    """Seconds for all maps, beside two of oipjax's own jobs in the same round, and the scores.

    Args:
        entries: with at least one round each.
        maps: how many maps there are.
    """
    rows = []
    for entry in sorted(entries, key=lambda entry: entry.contender.space):
        if entry.is_own and not entry.is_job:
            continue
        jobs = _jobs_in(entries, entry.contender.space)
        rows.append(_job_row(entry, 1, maps, jobs))
        starts = len(entry.rounds)
        if entry.how in BATCHED and starts > 1:
            rows.append(_job_row(entry, starts, maps, jobs))
    return rows


def _jobs_in(entries: Sequence[Entry], space: str) -> dict[str, Entry]:
    """The whole jobs of oipjax in an image space, by name."""
    jobs = {}
    for entry in entries:
        if entry.is_job and entry.contender.space == space:
            jobs[entry.how] = entry
    return jobs


def _job_row(entry: Entry, starts: int, maps: int, jobs: dict[str, Entry]) -> Row:
    """A row of a peer with one or more random starts per map, or of a whole job of oipjax."""
    maps_a_round = len(entry.rounds[0].maps)
    factor = maps / maps_a_round if entry.is_documented else 1.0
    seconds = starts * factor * entry.seconds
    targets, scores = _scores(entry, starts)
    reference = next(iter(jobs.values()), None)
    return {
        "contender": entry.contender.name,
        "how": entry.how,
        "space": entry.contender.space,
        "starts": "survey" if entry.is_job else starts,
        "extrapolated from maps": maps_a_round if factor > 1 else None,
        "seconds": float(np.median(seconds)),
        "rounds": seconds.tolist(),
        "cold": entry.cold if starts == 1 else None,
        f"/ {DEFAULT_JOB}": _median_ratio(seconds, jobs.get(DEFAULT_JOB)),
        f"/ {SHORT_JOB}": _median_ratio(seconds, jobs.get(SHORT_JOB)),
        **quality(scores),
        "of oipjax's score": _median_share(scores, targets, reference),
    }


def _scores(entry: Entry, starts: int) -> tuple[np.ndarray, np.ndarray]:
    """The maps, and their scores: of the first round, or the best of all rounds."""
    all_maps = [measurement.maps for measurement in entry.rounds]
    all_scores = [measurement.scores for measurement in entry.rounds]
    if entry.is_documented:
        return np.concatenate(all_maps), np.concatenate(all_scores)
    if starts == 1:
        return all_maps[0], all_scores[0]
    return all_maps[0], np.max(all_scores, axis=0)


def _median_ratio(seconds: np.ndarray, job: Entry | None) -> float | None:
    return None if job is None else float(np.median(seconds / job.seconds))


def _median_share(scores: np.ndarray, maps: np.ndarray, reference: Entry | None) -> float | None:
    """Score over that of a job of oipjax, median over the maps that the job found."""
    if reference is None:
        return None
    reference_scores = reference.rounds[0].scores[maps]
    is_found = reference_scores > 0
    if not np.any(is_found):
        return None
    return float(np.median(scores[is_found] / reference_scores[is_found]))


def plot(rates: Sequence[Row], jobs: Sequence[Row]) -> Figure:
    """Rates; and of the whole job the seconds, the scores, and the share of maps left at zero."""
    by_seconds = _falling(jobs, "seconds")
    jobs = []
    for space in reversed(SPACES):
        jobs += [row for row in by_seconds if row["space"] == space]
    figure = Figure(figsize=(14.0, 1.6 + 0.24 * len(jobs)), layout="constrained")
    left, *panels = figure.subplots(1, 4, width_ratios=(1.2, 1, 1, 0.8))
    _draw_rates(left, _falling(rates, "steady")[::-1])
    _draw_seconds(panels[0], jobs)
    _draw_scores(panels[1], jobs)
    _draw_zeros(panels[2], jobs)
    for axes in panels[1:]:
        axes.set_yticks([])
    return figure


def _falling(rows: Sequence[Row], name: str) -> list[Row]:
    return sorted(rows, key=lambda row: -row[name])


def _draw_rates(axes: Axes, rows: Sequence[Row]) -> None:
    rates = [row["steady"] for row in rows]
    _bars(axes, rows, rates, [str(rate) for rate in rates])
    labels = [f"{row['contender']}, {row['how']}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set(title="Ascent alone", xlabel="image-steps per second")
    axes.locator_params(axis="x", nbins=4)


def _draw_seconds(axes: Axes, rows: Sequence[Row]) -> None:
    seconds = [row["seconds"] for row in rows]
    _bars(axes, rows, seconds, [f"{value:.3g}" for value in seconds])
    axes.set_xscale("log")
    axes.set(title="The whole job", xlabel="seconds, all maps")
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])


def _draw_scores(axes: Axes, rows: Sequence[Row]) -> None:
    lengths = []
    texts = []
    for row in rows:
        share = row["of oipjax's score"]
        lengths.append(0 if share is None else share)
        texts.append("" if share is None else f"{share:.2f}")
    _bars(axes, rows, lengths, texts)
    axes.set(xlabel="score / oipjax's, median map")


def _draw_zeros(axes: Axes, rows: Sequence[Row]) -> None:
    shares = [row["at zero"] / row["of"] for row in rows]
    _bars(axes, rows, shares, [f"{row['at zero']} of {row['of']}" for row in rows])
    axes.set(xlabel="share of maps at zero")


def _label(row: Row) -> str:
    name = f"{row['contender']}, {row['how']}"
    if row["how"] in BATCHED and row["starts"] > 1:
        name += f", best of {row['starts']}"
    return f"{name} ({row['space']})"


def _bars(axes: Axes, rows: Sequence[Row], values: list[float], texts: list[str]) -> None:
    """A bar for each row, with a text at its end."""
    colours = [BLUE if row["contender"] == OWN.name else GREY for row in rows]
    axes.barh(range(len(rows)), values, color=colours)
    for place, value in enumerate(values):
        axes.annotate(f" {texts[place]}", (value, place), va="center", fontsize=8)
    axes.margins(x=0.3, y=0.01)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
