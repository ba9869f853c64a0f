"""Throughput and latency against concurrency, batched and not, as pictures for the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BATCHED, _SINGLE = "#1f6fb2", "#c0552b"
_DPI = 110


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Write throughput.png and latency.png there, from what the part `throughput` has found;
    nothing if it has not been measured."""
    if "throughput" not in found or "unbatched" not in found:
        return
    _save(_throughput(found), folder / "throughput.png")
    _save(_latency(found), folder / "latency.png")


def _throughput(found: Mapping[str, Any]) -> Figure:
    figure, axes = _figure("whole calls a second", found["throughput"])
    for key, name, colour in _lines():
        axes.plot(*_points(found[key], "rate"), "o-", color=colour, label=name)
    ones = [sample for sample in found.get("one_client", []) if sample["at_once"]]
    if ones:
        last = ones[-1]
        axes.plot(last["at_once"], last["rate"], "D", color="#2f8f4e", label="batched, one client")
    floor = found.get("floor")
    if floor:
        label = f"floor: the rows alone, {floor['batch']} calls a transaction"
        axes.axhline(floor["rate"], color="grey", linestyle=":", label=label)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _latency(found: Mapping[str, Any]) -> Figure:
    figure, axes = _figure("authorization, ms", found["throughput"])
    for key, name, colour in _lines():
        for value, style, share in (("p50", "o-", "median"), ("p99", "o--", "99 %")):
            points = _points(found[key], value)
            axes.plot(*points, style, color=colour, label=f"{name}, {share}")
    axes.set_yscale("log")
    axes.legend()
    return figure


def _lines() -> tuple[tuple[str, str, str], ...]:
    return (
        ("throughput", "batched", _BATCHED),
        ("unbatched", "a transaction for each operation", _SINGLE),
    )


def _figure(title: str, samples: Sequence[Mapping[str, float]]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    axes.set_xlabel("authorizations in flight")
    axes.set_ylabel(title)
    levels = [sample["at_once"] for sample in samples]
    axes.set_xticks(levels, [f"{level:.0f}" for level in levels])
    axes.grid(alpha=0.3)
    return figure, axes


def _points(samples: Sequence[Mapping[str, float]], value: str) -> tuple[list[float], list[float]]:
    return [sample["at_once"] for sample in samples], [sample[value] for sample in samples]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI)
