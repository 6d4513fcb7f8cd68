"""Judges the models that show.py has trained: what RESULTS.md says of them beyond accuracy, and the pictures of docs/how_to.

    python benchmarks/reports.py               all of them (about ten minutes on two cores)
    python benchmarks/reports.py digits        some of them
    python benchmarks/reports.py --pictures    the pictures alone, from the digits: the only images here that may be shown

Needs what `python benchmarks/show.py` leaves in runs/show/. Each model's temperature is fitted anew on its validation images; the scores
are of its test images.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

import show
import tables

RESULTS = show.RESULTS / "reports"
TARGET = 0.95  # accuracy of the sure answers
DAMAGED = ("digits", "imagenette160")  # the small ones: 15 more passes over the test images
PICTURES = {  # file in the working folder -> picture of docs/images
    "runs/digits/evaluation-test-confusion.png": "evaluate_confusion.png",
    "runs/digits/evaluation-test-robustness.png": "evaluate_robustness.png",
    "runs/digits/calibration-coverage.png": "calibrate_coverage.png",
    "explanation-digits/explanation-samples-image-01.png": "explain_image.png",
    "explanation-digits/explanation-samples-kernels.png": "explain_kernels.png",
    "doctor-digits/digits-health-classes.png": "doctor_classes.png",
    "runs/compare-digits/comparison-accuracy.png": "compare_accuracy.png",
    "runs/ablate-digits/ablation-differences.png": "ablate_differences.png",
}
SHOWN = (
    "convmix explain runs/digits samples --output explanation-digits --limit 4",
    "convmix doctor digits --run runs/digits --output doctor-digits",
    "convmix compare digits --recipe digits --precision fp32 --models convmixer_32_4_k3_p1 convmixer_96_6_k3_p1 resnet10t "
    "--epochs 5 --seeds 3 --out runs/compare-digits",
    "convmix ablate digits --recipe digits --model convmixer_32_4_k3_p1 --axes kernel norm act --epochs 5 --seeds 3 "
    "--out runs/ablate-digits",
)


def convmix(command: str) -> int:
    """The exit code of a command, typed in the working folder of the experiments."""
    print(f"\n$ {command}", flush=True)
    _, *arguments = shlex.split(command)
    return subprocess.run([sys.executable, "-m", "convmix", *arguments], cwd=show.PLACE, stdin=subprocess.DEVNULL).returncode


def must(command: str) -> None:
    if code := convmix(command):
        raise SystemExit(f"{command}: ended with {code}")


def judge(name: str) -> None:
    """Calibrates a run, evaluates it and keeps the numbers."""
    run = f"runs/{name}"
    if convmix(f"convmix calibrate {run} --accuracy {TARGET}"):  # no threshold reaches it: every answer is sure
        must(f"convmix calibrate {run}")
    must(f"convmix evaluate {run}" + (" --robustness" if name in DAMAGED else ""))
    found = json.loads((show.PLACE / run / "evaluation-test.json").read_text())
    kept = {
        "name": name,
        "target": TARGET,
        "metrics": {key: value for key, value in found["metrics"].items() if key not in ("per_class", "confusion")},
        "calibration": {key: value for key, value in found["calibration"].items() if not key.startswith("bins")},
        "robustness": found["robustness"],
        "worse_slices": [s for s in found["slices"] if s["worse"]],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def picture() -> None:
    """The pictures of the how-to pages."""
    from convmix.demo import write_samples

    write_samples(show.PLACE / "runs/digits", show.PLACE / "samples")
    for command in SHOWN:
        must(command)
    for made, name in PICTURES.items():
        shutil.copyfile(show.PLACE / made, show.IMAGES / name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [e.name for e in show.EXPERIMENTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments to judge: " + ", ".join(known))
    parser.add_argument("--pictures", action="store_true", help="only the pictures of docs/how_to")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no experiment named {', '.join(unknown)}; there are {', '.join(known)}")
    for name in options.names or ([] if options.pictures else known):
        judge(name)
    if options.pictures or not options.names:
        picture()
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
