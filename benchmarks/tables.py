"""Writes RESULTS.md and the tables of README.md and docs/how_to/plan.md from the run records in benchmarks/results/.

    python benchmarks/tables.py            write them
    python benchmarks/tables.py --check    fail where they differ from what would be written

Every number comes from a record (benchmarks/results/README.md says what is in one); nothing is typed by hand.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ablation_tables
import dense_tables
import dense_weights_tables
import distill_tables
import distributed_tables
import few_tables
import gpu_tables
import multilabel_tables
import plan_tables
import readers_tables
import report_tables
import scaling_tables
import serving_tables
import speed_tables

ROOT = Path(__file__).resolve().parents[1]
SPEED = ROOT / "benchmarks/results/speed"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CURVE_ROWS = 10
KEYS = (
    "name", "command", "date", "data.name", "data.fingerprint", "data.train", "data.val", "data.test", "model", "parameters", "macs",
    "recipe", "settings", "budget_s", "epochs_done", "images_seen", "elapsed_s", "train_elapsed_s", "images_per_s",
    "test.n", "test.accuracy", "test.accuracy_interval", "test.loss", "val.accuracy",
    "machine.device", "machine.name", "machine.cores", "machine.precision", "versions.convmix", "versions.torch", "curve",
)  # fmt: skip

Record = Mapping[str, Any]
SPEED_HEAD = """## Speed

`convmix benchmark` (docs/how_to/speed.md) runs every contender in a process of its own; they take turns, and ratios are taken round by
round. The official path is timm's module, or the authors', eager in float32; peers run that module in the settings that are fastest
somewhere. Training is forward, loss, backward and AdamW. "Of matmul rate": counted multiply-adds against the machine's own rate of
2048 x 2048 matrix products in the same type; fewer products than counted are done where Winograd's algorithm is used. "Error": largest
difference of the logits (training: of the first loss), as a share of the largest. Peak memory is without what the imports take.
convmix's processes keep freed memory for the next batch, as `train`, `predict` and `evaluate` do; the peers run as they are installed.
`make speed` repeats it all.
"""


def read_records(folder: Path) -> list[Record]:
    """Every record of the folder, sorted by data set and name; a record that lacks a key is an error naming file and key."""
    records = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        missing = [key for key in KEYS if not _has(record, key)]
        if missing:
            raise SystemExit(f"{path.name} is no complete run record: it lacks {', '.join(missing)}")
        records.append(record)
    return sorted(records, key=lambda r: (r["data"]["name"], r["name"]))


def _has(record: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(record, dict) or part not in record:
            return False
        record = record[part]
    return True


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def accuracy(split: Record) -> str:
    """'92.6 % (92.1 to 93.1)': the share and its 95 % interval."""
    low, high = split["accuracy_interval"]
    return f"{percent(split['accuracy'])} % ({percent(low)} to {percent(high)})"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds / 60:.1f} min"


def count(number: float) -> str:
    """594186 -> 0.594 M; exact figures stand in the record."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size / 10:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def trained_for(r: Record) -> str:
    epochs = f"{r['epochs_done']:.1f}".removesuffix(".0") + " epochs"
    return epochs if r["budget_s"] is None else f"budget {duration(r['budget_s'])}: {epochs}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def summary(records: Sequence[Record]) -> str:
    """One row per record; the head of RESULTS.md."""
    header = ("data", "model", "parameters", "trained for", "images/s", "test accuracy (95 % interval)", "test images")
    rows = [
        (
            r["data"]["name"],
            f"`{r['model']}`",
            count(r["parameters"]),
            trained_for(r),
            f"{r['images_per_s']:.0f}",
            accuracy(r["test"]),
            f"{r['test']['n']:,}",
        )
        for r in records
    ]
    return table(header, rows) if rows else "No run has been recorded yet: `make show` does it."


def headlines(records: Sequence[Record], races: Sequence[Record] = (), dense: Sequence[Record] = ()) -> str:
    """README's table: the best accuracy on the largest test set, the best detector, the speed of the largest network."""
    rows = []
    if records:
        r = max(records, key=lambda r: (r["test"]["n"], r["test"]["accuracy"]))
        what = f"classes of {r['data']['name']}, {r['test']['n']:,} test images"
        rows.append((what, f"`{r['model']}`", f"{count(r['parameters'])} parameters, {trained_for(r)}", f"accuracy {accuracy(r['test'])}"))
    rows += [*dense_tables.headline(dense), *speed_tables.headline(races)]
    return table(("what", "model", "cost", "result"), rows) if rows else "No run has been recorded yet: `make show` does it."


def curve(points: Sequence[Record]) -> str:
    """At most CURVE_ROWS epochs, evenly picked, the first and the last among them."""
    last = len(points) - 1
    picked = sorted({round(i * last / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS)}) if last >= CURVE_ROWS else range(len(points))
    rows = [
        (
            p["epoch"],
            p["step"],
            f"{p['train_loss']:.3f}",
            f"{p['val_loss']:.3f}",
            percent(p["val_accuracy"]),
            f"{p['lr']:.2g}",
            duration(p["elapsed_s"]),
        )
        for p in (points[i] for i in picked)
    ]
    return table(("epoch", "step", "train loss", "val loss", "val accuracy %", "lr", "elapsed"), rows)


def section(r: Record) -> str:
    """Everything a reader needs to run the same again and compare."""
    data, machine, versions, test = r["data"], r["machine"], r["versions"], r["test"]
    overrides = ", ".join(f"`{key}={value}`" for key, value in sorted(r["settings"].items())) or "none"
    top5 = f"top-5 {percent(test['top5'])} %, " if test.get("top5") is not None else ""
    facts = (
        f"model: `{r['model']}`, {r['parameters']:,} parameters, {count(r['macs'])} multiply-adds per image",
        f"recipe: `{r['recipe']}`, settings changed: {overrides}",
        f"data: {data['name']}, {data['train']:,} images to train on, {data['val']:,} to validate, {data['test']:,} to test; "
        f"fingerprint `{data['fingerprint']}`",
        f"training: {trained_for(r)}, {r['images_seen']:,} images in {duration(r['train_elapsed_s'])} "
        f"({r['images_per_s']:.0f} images/s); whole run {duration(r['elapsed_s'])}",
        f"test: {accuracy(test)}, {top5}loss {test['loss']:.3f}, n = {test['n']:,}; validation {percent(r['val']['accuracy'])} %",
        f"machine: {machine['name']}, {machine['cores']} cores, {machine['device']}, {machine['precision']}; "
        f"torch {versions['torch']}, convmix {versions['convmix']}; {r['date']}",
    )
    listed = "\n".join(f"- {fact}" for fact in facts)
    return f"## {r['name']}\n\n```sh\n{r['command']}\n```\n\n{listed}\n\n{curve(r['curve'])}\n"


def read_int8(folder: Path) -> list[Record]:
    """What benchmarks/int8.py has measured."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def int8_section(records: Sequence[Record]) -> str:
    """What int8 changes in the answers of trained models."""
    header = ("trained model", "float32", "int8", "difference in points", "answers that differ", "x float32's speed", "engine")
    rows = [
        (
            r["name"],
            accuracy(r["fp32"]),
            accuracy(r["int8"]),
            f"{100 * (r['int8']['accuracy'] - r['fp32']['accuracy']):+.2f}",
            f"{r['changed_answers']:,} of {r['fp32']['n']:,}",
            f"{r['times_as_fast_as_float32']:.2f}",
            r["engine"],
        )
        for r in records
    ]
    return f"### What int8 costs in accuracy\n\n```sh\npython benchmarks/int8.py\n```\n\n{table(header, rows)}\n"


def results_page(
    records: Sequence[Record],
    races: Sequence[Record] = (),
    sweeps: Sequence[Record] = (),
    int8: Sequence[Record] = (),
    ablations: Sequence[Record] = (),
    reports: Sequence[Record] = (),
    dense: Sequence[Record] = (),
    sections: Sequence[str] = (),
) -> str:
    head = """# Results

Written by `make results` from the run records in [benchmarks/results](benchmarks/results/README.md); not edited by hand. `make show` runs
the experiments again. Every accuracy is on test images that the run used for nothing else, at its end, with one seed; the interval
is Wilson's 95 % interval for a share and says nothing about the spread between seeds.
"""
    parts = [head, summary(records), "", *map(section, records)]
    parts += [dense_tables.section(dense, table)] if dense else []
    parts += [report_tables.section(reports, table)] if reports else []
    parts += ablation_tables.sections(ablations, table)
    if races or sweeps:
        parts += [SPEED_HEAD, speed_tables.summary(races, table), ""]
        parts += [speed_tables.section(r, table) for r in races]
        parts += [int8_section(int8)] if int8 else []
        parts += [speed_tables.sweep_section(s, table) for s in sweeps]
    parts += sections
    return "\n".join(parts).rstrip("\n") + "\n"


def readme_page(readme: str, records: Sequence[Record], races: Sequence[Record] = (), dense: Sequence[Record] = ()) -> str:
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise SystemExit(f"README.md must hold {BEGIN} and {END} once each, in this order")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{headlines(records, races, dense)}\n\n{END}{rest.split(END)[1]}"


def pages(root: Path) -> dict[Path, str]:
    """The files that are written, with what stands in them."""
    records = read_records(root / "benchmarks/results")
    races, sweeps = speed_tables.read_races(root / "benchmarks/results/speed")
    ablations = ablation_tables.read_ablations(root / "benchmarks/results/ablation")
    reports = report_tables.read_reports(root / "benchmarks/results/reports")
    dense = dense_tables.read_dense(root / "benchmarks/results/dense")
    results = root / "benchmarks/results"
    several = multilabel_tables.section(multilabel_tables.read(results / "multilabel"), table)
    few_images = (
        few_tables.section(few_tables.read_few(results / "few"), table),
        few_tables.unlike_section(few_tables.read_few(results / "unlike"), table),
        distill_tables.section(distill_tables.read_distill(results / "distill"), table),
        dense_weights_tables.section(dense_weights_tables.read_dense_weights(results / "dense_weights"), table),
    )
    sections = (
        *filter(None, (several, *few_images)),
        gpu_tables.section(gpu_tables.read_gpu(results / "gpu"), table),
        serving_tables.tables(table, results / "serving"),
        scaling_tables.tables(results / "scaling"),
        distributed_tables.tables(results / "distributed"),
        readers_tables.section(results / "readers/cases.json", table),
    )
    readme, plan = root / "README.md", root / "docs/how_to/plan.md"
    return {
        root / "RESULTS.md": results_page(records, races, sweeps, read_int8(results / "int8"), ablations, reports, dense, sections),
        readme: readme_page(readme.read_text(), records, races, dense),
        plan: plan_tables.page(plan.read_text(), root / "benchmarks/results", table),
    }


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is not up to date")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in pages(root).items() if not path.exists() or path.read_text() != text]
    if check:
        for path in stale:
            print(f"{path.name} is not what the records say; run `make results`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages(root).items():
        path.write_text(text)
        print(f"{path.name}: {'written' if path in stale else 'unchanged'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
