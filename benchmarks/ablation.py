"""Runs the ablation behind RESULTS.md: which of the ConvMixer paper's CIFAR-10 findings hold in a training that two cores can do.

    python benchmarks/ablation.py              about 20 minutes on two cores; interrupted, it goes on where it was
    python benchmarks/ablation.py --collect    nothing is trained: takes the record of the finished ablation again

Data comes from ../shared/data (or $CONVMIX_SHARED/data) and goes to runs/show/, which git ignores; so do the trained models.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

import ablation_tables
import show
import tables

NAME = "cifar10"
# The paper's recipe, for a network and a number of steps that two cores can do 57 times. The weights of the last epoch are kept: the rate
# is zero there, so that validation images would choose little, and they would cost a third of the time.
COMMAND = (
    "convmix ablate cifar10 --model convmixer_64_4_k5_p4 --recipe convmixer_cifar10_200 --images 6000 --epochs 5 --seeds 3 "
    "--val-fraction 0 --tune never"
)
OUT = show.PLACE / "runs" / f"ablate-{NAME}"


def run() -> int:
    """The exit code of the command; its output goes straight to the terminal."""
    show.PLACE.mkdir(parents=True, exist_ok=True)
    show.prepare("cifar10")
    command = f"{COMMAND} --out {OUT.relative_to(show.PLACE)}"
    print(f"\n$ {command}", flush=True)
    _, *arguments = shlex.split(command)
    return subprocess.run([sys.executable, "-m", "convmix", *arguments], cwd=show.PLACE, stdin=subprocess.DEVNULL).returncode


def collect() -> None:
    """Copies the record, with the command as anybody would type it, and the picture."""
    record = json.loads((OUT / "ablation.json").read_text()) | {"name": NAME, "command": COMMAND}
    ablation_tables.PLACE.mkdir(parents=True, exist_ok=True)
    target = ablation_tables.PLACE / f"{NAME}.json"
    target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    shutil.copyfile(OUT / "ablation-differences.png", ablation_tables.PLACE / f"{NAME}.png")
    print(f"{target.relative_to(tables.ROOT)}: written")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", action="store_true", help="train nothing, take the record of the finished ablation")
    if not parser.parse_args(arguments).collect and (code := run()) != 0:
        return code
    collect()
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
