"""Pictures of races: bars for one work, lines where something grows. PNG, 900 pixels wide."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from convmix.benchmarking.record import title
from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, WIDTH_IN, png

COLOURS = {"official": ORANGE, "peer": GREY, "ours": BLUE}
HATCHES = {"official": "//", "peer": "", "ours": ""}
MARKERS = {"official": "s", "peer": "^", "ours": "o"}


def bars(record: Mapping[str, Any]) -> bytes:
    """Images per second of every contender, the fastest above, with the quartiles as whiskers."""
    from matplotlib.figure import Figure

    lanes = sorted((lane for lane in record["lanes"] if not lane["failed"]), key=lambda lane: lane["images_per_s"])
    figure = Figure(figsize=(WIDTH_IN, 1.1 + 0.36 * len(lanes)), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    batch = record["work"]["batch_size"]
    for row, lane in enumerate(lanes):
        rate = lane["images_per_s"]
        low, high = (1000 * batch / ms for ms in reversed(lane["quartiles_ms"]))
        axes.barh(row, rate, color=COLOURS[lane["role"]], hatch=HATCHES[lane["role"]], edgecolor="white", linewidth=0.5)
        axes.plot([low, high], [row, row], color="black", linewidth=1.2)
        axes.text(max(rate, high), row, f"  {rate:,.0f}" if rate >= 100 else f"  {rate:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(lanes)), [lane["name"] for lane in lanes], fontsize=9)
    for label, lane in zip(axes.get_yticklabels(), lanes, strict=True):
        label.set_fontweight("bold" if lane["role"] == "ours" else "normal")
    axes.margins(x=0.12)
    axes.set_xlabel("images per second (bars: medians; lines: quartiles over the rounds)")
    axes.set_title(title(record), loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return png(figure)


def lines(records: Sequence[Mapping[str, Any]], over: str) -> bytes:
    """Throughput and memory of every contender against what grows."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(WIDTH_IN, 4.2), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1)
    speed, memory = figure.subplots(1, 2)
    names = [(lane["name"], lane["role"]) for lane in records[0]["lanes"]]
    styles = cycle(("-", "--", ":", "-."))  # colour is never the only sign
    for name, role in names:
        points = [
            (record["point"], lane["images_per_s"], lane["memory_mib"])
            for record in records
            for lane in record["lanes"]
            if lane["name"] == name and not lane["failed"]
        ]
        x = [point[0] for point in points]
        style: dict[str, Any] = {"color": COLOURS[role], "marker": MARKERS[role], "linestyle": next(styles), "label": name}
        speed.plot(x, [point[1] for point in points], **style)
        memory.plot(x, [point[2] for point in points], **style)
    for axes, what in ((speed, "images per second"), (memory, "peak memory (MiB)")):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        if over in ("batch", "resolution", "depth"):
            axes.set_xscale("log", base=2)
        axes.set_xticks([record["point"] for record in records], [str(record["point"]) for record in records])
        axes.minorticks_off()
        axes.set_xlabel({"batch": "images per batch", "resolution": "side in pixels", "depth": "blocks", "kernel": "kernel size"}[over])
        axes.set_title(what, loc="left", fontsize=10)
        axes.grid(color="#dddddd", linewidth=0.7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    speed.legend(frameon=False, fontsize=9)
    figure.suptitle(title(records[0], over=over), fontsize=10, x=0.01, ha="left")
    return png(figure)
