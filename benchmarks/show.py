"""Runs the experiments that README.md and RESULTS.md show, one after the other, and collects their records.

    python benchmarks/show.py                    all of them (about an hour on two cores)
    python benchmarks/show.py digits             some of them
    python benchmarks/show.py --collect          nothing is trained: takes the records of finished runs again

Data comes from ../shared/data (or $CONVMIX_SHARED/data) and goes to runs/show/, which git ignores; so do the trained models.
Expected: digits >= 98.5 %, cifar10-10m >= 84 %, cifar10-convmixer_256_8 >= 50 %, each in its ten minutes.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tables

SHARED = Path(os.environ.get("CONVMIX_SHARED", tables.ROOT.parent / "shared")).resolve()
PLACE = tables.ROOT / "runs/show"  # the working folder of every experiment, so that no command holds a path of this machine
RESULTS = tables.ROOT / "benchmarks/results"
IMAGES = tables.ROOT / "docs/images"


@dataclass(frozen=True)
class Experiment:
    name: str
    command: str  # as typed in PLACE; --out is added
    data: str = ""  # file or folder of SHARED/data it needs; "" where the data is embedded
    pictured: bool = False  # whether README shows its pictures: only where the images may be shown

    @property
    def out(self) -> Path:
        """The model directory."""
        return PLACE / "runs" / self.name


EXPERIMENTS = (
    Experiment("digits", "convmix train digits --recipe digits", pictured=True),
    Experiment("cifar10-convmixer_256_8", "convmix train cifar10 --model convmixer_256_8 --budget 10m", "cifar10"),
    Experiment("cifar10-10m", "convmix train cifar10 --budget 10m", "cifar10"),
    Experiment("cifar10-convmlp_s", "convmix train cifar10 --model convmlp_s --budget 10m", "cifar10"),
    Experiment("cifar10-multiscale_convmixer_t", "convmix train cifar10 --model multiscale_convmixer_t --budget 10m", "cifar10"),
    Experiment("imagenette160", "convmix train imagenette160 --model convmixer_256_8_k7_p8 --budget 10m", "imagenette160.tar.gz"),
)


def prepare(data: str) -> None:
    """Puts one data set of SHARED into PLACE: a folder is linked, an archive unpacked."""
    origin, name = SHARED / "data" / data, data
    if not origin.exists():
        raise SystemExit(f"{data} is not in {SHARED / 'data'}; set CONVMIX_SHARED to the folder that holds data/{data}")
    if origin.is_file():
        with tarfile.open(origin) as archive:
            name = next(iter(archive)).name.split("/")[0]  # the folder inside, which may be called otherwise than the archive
    target = PLACE / name
    if target.exists():
        return
    if origin.is_dir():
        target.symlink_to(origin, target_is_directory=True)
        return
    unpacked = PLACE / f".unpacking-{name}"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(origin) as archive:
        archive.extractall(unpacked, filter="data")
    (unpacked / name).rename(target)  # only a complete data set gets its name
    unpacked.rmdir()


def train(experiment: Experiment) -> int:
    """The exit code of the experiment's own process; its output goes straight to the terminal."""
    if experiment.data:
        prepare(experiment.data)
    shutil.rmtree(experiment.out, ignore_errors=True)
    command = f"{experiment.command} --out {experiment.out.relative_to(PLACE)}"
    print(f"\n$ {command}", flush=True)
    _, *arguments = shlex.split(command)
    return subprocess.run([sys.executable, "-m", "convmix", *arguments], cwd=PLACE, stdin=subprocess.DEVNULL).returncode


def collect(experiment: Experiment) -> Path:
    """Copies the run's record, under the experiment's name and with the command as anybody would type it."""
    record = json.loads((experiment.out / "record.json").read_text())
    record |= {"name": experiment.name, "command": experiment.command}
    target = RESULTS / f"{experiment.name}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    if experiment.pictured:
        IMAGES.mkdir(parents=True, exist_ok=True)
        for picture in ("curves", "predictions"):
            shutil.copyfile(experiment.out / f"{picture}.png", IMAGES / f"{experiment.name}_{picture}.png")
    return target


def run_all(
    experiments: Sequence[Experiment], collected: Callable[[Experiment], Path], arguments: Sequence[str] | None, *, about: str | None
) -> int:
    """The command of a file of experiments: those named are trained, their records taken by `collected`, and the pages written."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [e.name for e in experiments]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"experiments to run: {', '.join(known)}")
    parser.add_argument("--collect", action="store_true", help="train nothing, take the records of the finished runs")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no experiment named {', '.join(unknown)}; there are {', '.join(known)}")
    PLACE.mkdir(parents=True, exist_ok=True)
    failed = []
    for experiment in (e for e in experiments if not options.names or e.name in options.names):
        if not options.collect and train(experiment) != 0:
            failed.append(experiment.name)
        elif (experiment.out / "record.json").exists():
            print(f"{collected(experiment).relative_to(tables.ROOT)}: written")
        else:
            failed.append(experiment.name)
    tables.main([])
    if failed:
        print(f"no record from {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_all(EXPERIMENTS, collect, arguments, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
