"""The page of a benchmark: the picture, the ratios in words, and every contender's numbers; of a sweep those at every point."""

from collections.abc import Sequence

from convmix.benchmarking.disturbance import is_steady
from convmix.benchmarking.record import Record, disturbed, processor_line, summary, title
from convmix.plots.html_page import Page

_HEADER = ("", "images/s", "ms", "quartiles", "x official", "convmix x", "MiB", "of peak", "error", "start s", "computed by")


def page(records: Sequence[Record], picture: bytes, *, over: str = "") -> Page:
    """One record, or those of a sweep with what grows in `over`; `picture` is the PNG of `bar_plots`."""
    first = records[0]
    made = Page(title(first, over=over), f"{processor_line(first)} {first['date']}: {first['command']}")
    made.section("Speed")
    made.figure(picture, name="speed", alt="images per second of every contender")
    for record in records:
        if over:
            made.section(f"{over} {record['point']}")
        if disturbed(record):
            made.note(disturbed(record))
        else:
            made.text(summary(record))
        _table(made, record)
    made.section("How to read it")
    made.text(
        "All contenders wait in processes of their own and take turns. Times are medians over the rounds, with their quartiles; ratios are "
        "taken round by round. 'x official' says how many times as fast as the official path a contender is, 'convmix x' how many times as "
        "fast as it convmix is; 'of peak' is the share of the rate at which this machine multiplies large matrices; 'error' is the largest "
        "difference from the official path's output, as a share of the largest output."
    )
    return made


def _table(made: Page, record: Record) -> None:
    lanes = sorted((lane for lane in record["lanes"] if not lane["failed"]), key=lambda lane: lane["median_ms"])
    with_ratios = not record.get("disturbed")
    rows = []
    for lane in lanes:
        low, high = lane["quartiles_ms"]
        ratios = [
            f"{ratio['median']:.2f}" if with_ratios and ratio and is_steady(ratio) else "–"
            for ratio in (lane["to_official"], lane["ours_is_faster"])
        ]
        rows.append((
            lane["name"], f"{lane['images_per_s']:.1f}", f"{lane['median_ms']:.2f}", f"{low:.2f} to {high:.2f}", *ratios,
            "–" if lane["memory_mib"] is None else f"{lane['memory_mib']:.0f}", f"{lane['share_of_matmul_rate']:.0%}",
            "–" if lane["difference"] is None else f"{lane['difference']:.0e}",
            "–" if lane["start_s"] is None else f"{lane['start_s']:.0f}", lane["plan"],
        ))  # fmt: skip
    made.table(_HEADER, rows)
    failed = [(lane["name"], lane["failed"]) for lane in record["lanes"] if lane["failed"]]
    if failed:
        made.table(("not measured", "because"), failed)
