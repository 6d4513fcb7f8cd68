"""The model card: the README.md of a model directory, for people and for the Hub.

Every number and every word about the training comes from convmix.json and config.json; nothing is known here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from convmix.models import catalog
from convmix.tasks import create_task, task_class

MAX_LABELS = 100
SAFE = "The weights are safetensors, the rest is JSON and CSV: nothing in this folder can execute."
_FITS = {
    "crop": "short side resized to size / {crop_pct:g}, then the centre",
    "letterbox": "the whole image fitted inside, the rest filled with the mean",
    "stretch": "resized to the size, aspect ignored",
}
_ENDED = {
    "epochs": "",
    "budget": " (the time budget was used up)",
    "early stopping": " (early stopping)",
    "head": " (the classifier alone was fitted, on frozen features)",
    "signal": " (stopped by a signal)",
}


def model_card(info: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Markdown with the Hub's front matter, from the contents of convmix.json and of config.json.

    Parts that `info` does not hold are left out; a training that is not finished says so.
    """
    parts = [
        _front_matter(info),
        _intro(info, config),
        _results(info),
        _calibration(info),
        _usage(info, config),
        _labels(info["labels"]),
        _data(info),
        _preprocessing(info["preprocess"]),
        _training(info),
        _versions(info),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(info: Mapping[str, Any]) -> str:
    task = task_class(info["task"])
    library = "timm" if task.opens_in_timm else "convmix"
    tags = list(dict.fromkeys([task.hub_tag, library, "convmix"]))
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {task.hub_tag}", "tags:", *(f"- {tag}" for tag in tags)]
    if info.get("metrics"):
        lines += ["metrics:", f"- {task.score_name}"]
    return "\n".join([*lines, "---"])


def _intro(info: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    name = (info.get("run") or {}).get("model") or config["architecture"]
    data = info.get("data") or {}
    h, w = info["preprocess"]["size"]
    on = f", trained on {_code(_data_name(data['spec']))}" if "spec" in data else ""
    text = f"# {name}{on}\n\n{task_class(info['task']).noun} with {len(info['labels'])} classes: {_code(name)} on images of {h}x{w} pixels"
    channels = info["preprocess"]["in_chans"]
    text += f" with {channels} channel{'s' if channels != 1 else ''}, made with convmix."
    if info.get("finished") is False:
        text += "\n\n**The training was not finished when this card was written.**"
    return text


def _results(info: Mapping[str, Any]) -> str:
    metrics = info.get("metrics") or {}
    if not metrics:
        return ""
    task = create_task(info["task"], tuple(info["labels"]))
    read = {split: {"split": split, "images": str(scores["n"]), **task.summary(scores)} for split, scores in metrics.items()}
    header = list(next(iter(read.values())))
    text = (
        "## Results\n\n" + _table(header, [list(row.values()) for row in read.values()]) + f"\n\n{task.intervals_are}; they cover the "
        "chance in drawing the images, nothing else."
    )
    if "val" in info["metrics"]:
        last = info["run"]["schedule"].get("keep") == "last"  # older directories do not say
        text += " The weights are those of the last epoch." if last else " The weights were chosen on the validation split."
    if "test" in info["metrics"]:
        calibrated = (info.get("calibration") or {}).get("split") == "test"
        text += " The test split was used for the calibration." if calibrated else " The test split was not used to choose anything."
    return text


def _calibration(info: Mapping[str, Any]) -> str:
    """How far the probabilities can be taken at their word, and when an answer is 'not sure'."""
    c = info.get("calibration")
    if c is None:
        return ""
    if "thresholds" in c:
        return _label_calibration(info, c)
    if "found" in c:
        return _score_calibration(c)
    where = {"val": "the validation split", "test": "the test split"}.get(c["split"], _code(_data_name(c["split"])))
    text = (
        f"## Calibration\n\nLogits are divided by the temperature {c['temperature']:.3f}, fitted on {c['n']} images of {where}; "
        f"on them the expected calibration error is {c['ece_before']:.4f} before and {c['ece_after']:.4f} after."
    )
    if c["threshold"] is None:
        return text + " There is no threshold: every answer counts as sure."
    text += f' An answer with a probability below {c["threshold"]:.4f} is "not sure".'
    if choice := c["choice"]:
        low, high = choice["accuracy_interval"]
        text += (
            f" This threshold was chosen on the same images for {choice['target']} {_percent(choice['wanted'])}: "
            f"{_percent(choice['coverage'])} of them are sure, {_percent(choice['accuracy'])} of those right "
            f"(95 % interval {_percent(low)} to {_percent(high)})."
        )
    return text


def _score_calibration(c: Mapping[str, Any]) -> str:
    """The same for the scores of objects."""
    where = {"val": "the validation split", "test": "the test split"}.get(c["split"], _code(_data_name(c["split"])))
    return (
        f"## Calibration\n\nScores are scaled and shifted (Platt) by what {c['found']} objects found in {c['n']} images of {where} turned "
        f"out to be at an IoU of one half; on them the expected calibration error is {c['ece_before']:.4f} before and "
        f"{c['ece_after']:.4f} after."
    )


def _label_calibration(info: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """The same where every label has its own probability and threshold."""
    where = {"val": "the validation split", "test": "the test split"}.get(c["split"], _code(_data_name(c["split"])))
    by = "the best F1" if c["wanted"] is None else f"a precision of {_percent(c['wanted'])}"
    rows = [
        (_code(label), f"{threshold:.3f}" + ("" if reached else " *"))
        for label, threshold, reached in zip(info["labels"], c["thresholds"], c["reached"], strict=True)
    ]
    text = (
        f"## Calibration\n\nThe logits of every label are scaled and shifted (Platt), and its threshold set for {by}, on {c['n']} images "
        f"of {where}; on them the mean expected calibration error of the labels is {c['ece_before']:.4f} before and {c['ece_after']:.4f} "
        "after. "
        "Scores of the validation split are those at a threshold of one half, before that.\n\n"
        + _table(("label", "threshold"), rows[:MAX_LABELS])
    )
    if len(rows) > MAX_LABELS:
        text += f"\n\n{len(rows) - MAX_LABELS} more are in `convmix.json`."
    return text + ("" if all(c["reached"]) else "\n\n*: the images do not show where it should be.")


def _usage(info: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    ours = """## Use

```python
import convmix

model = convmix.load("path/to/this/folder")
print(model.predict(["image.jpg"]))
```
"""
    if not task_class(info["task"]).opens_in_timm:
        return f"{ours}\n{SAFE}"
    needs = catalog.needs_convmix(config["architecture"], config.get("model_args") or {})
    extra = f"import convmix  # tells timm about {config['architecture']}\n" if needs else ""
    return f"""{ours}
With timm{"" if needs else ", without convmix"}:

```python
{extra}import timm

model = timm.create_model("local-dir:path/to/this/folder", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
```

{SAFE}"""


def _labels(labels: Sequence[str]) -> str:
    shown = ", ".join(_code(label) for label in labels[:MAX_LABELS])
    more = f" and {len(labels) - MAX_LABELS} more, all in `convmix.json`" if len(labels) > MAX_LABELS else ""
    return f"## Labels\n\n{shown}{more}"


def _data(info: Mapping[str, Any]) -> str:
    data = info.get("data") or {}
    if not data:
        return ""
    origin = data.get("origin") or {}
    rows = [(split, n, _cell(origin.get(split, ""))) for split, n in (data.get("counts") or {}).items()]
    lines = ["## Data", "", _table(("split", "images", "where it comes from"), rows)]
    if "bad" in data:
        bad = data["bad"]
        lines += ["", f"Images that could not be read: {bad}" + (" (`bad_images.csv` lists them with the reason)." if bad else ".")]
    if "fingerprint" in data:
        lines += ["", f"Fingerprint of the data: {_code(data['fingerprint'])}; `splits.csv` lists every image with its split and digest."]
    notes = [f"- {note}" for note in data.get("notes") or ()]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _preprocessing(preprocess: Mapping[str, Any]) -> str:
    h, w = preprocess["size"]
    rows = [
        ("size", f"{h}x{w} (height x width, pixels)"),
        ("geometry", f"{preprocess['fit']}: {_FITS[preprocess['fit']].format(crop_pct=preprocess['crop_pct'])}"),
        ("interpolation", preprocess["interpolation"]),
        ("channels", preprocess["in_chans"]),
        ("mean", ", ".join(f"{v:.4f}" for v in preprocess["mean"])),
        ("std", ", ".join(f"{v:.4f}" for v in preprocess["std"])),
    ]
    text = "EXIF orientation is applied, transparency is put on white, 8-bit values are divided by 255."
    return f"## Preprocessing\n\n{_table(('setting', 'value'), rows)}\n\n{text}"


def _training(info: Mapping[str, Any]) -> str:
    run, done, machine = info.get("run") or {}, info.get("training") or {}, info.get("machine") or {}
    if not run:
        return ""
    lines = ["## Training", ""]
    if run.get("recipe"):
        lines.append(f"Recipe {_code(run['recipe'])}" + (f", from: {run['source']}." if run.get("source") else "."))
    if done:
        took = f" in {_duration(done['elapsed_s'])}"
        speed = f", {done['images_per_s']:,.0f} images/s" if done.get("images_per_s") else ""
        best = f"; the weights are those of epoch {done['kept_epoch']}" if done.get("kept_epoch") is not None else ""
        lines.append(
            f"{done['epochs_done']} epochs, {done['steps']:,} steps and {done['images_seen']:,} images{took}{speed}"
            f"{_ENDED.get(done.get('stopped', ''), '')}{best}."
        )
    if machine:
        lines.append(f"Machine: {machine.get('name')} ({machine.get('device')}, {machine.get('cores')} cores).")
    rows = [(_code(name), _code(json.dumps(value))) for name, value in _flat(run) if name not in ("recipe", "source", "expect")]
    return "\n".join(lines) + "\n\nEvery setting, as resolved:\n\n" + _table(("setting", "value"), rows)


def _versions(info: Mapping[str, Any]) -> str:
    versions = info.get("versions") or {}
    return "## Versions\n\n" + _table(("package", "version"), list(versions.items())) if versions else ""


def _flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """`{"optim": {"lr": 1}}` -> `[("optim.lr", 1)]`."""
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        flat += [(f"{name}.{key}", v) for key, v in value.items()] if isinstance(value, Mapping) else [(name, value)]
    return flat


def _data_name(spec: str) -> str:
    """The data set's name; of a path that leads through the author's machine only the end."""
    path = PurePath(spec)
    return path.name if path.is_absolute() or spec.startswith((".", "~")) else spec.rstrip("/")


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _code(text: str) -> str:
    """As code: a label such as *a* or <b> stays what it is."""
    text = _cell(text).replace("`", "'")
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m} min" if hours else f"{m} min {s} s" if m else f"{s} s"
