"""Runs the races that README.md and RESULTS.md show: convmix beside its peers (`convmix benchmark`), one after the other.

    python benchmarks/speed.py                 all of them (about two hours on two cores)
    python benchmarks/speed.py training        some of them

Nothing else may run on the machine meanwhile. Expected on two cores with AVX-512 bf16: training 2.5 times the best peer; inference of the
three ConvMixers faster than every peer.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence

import tables

SMALL = "convmix benchmark convmixer_256_8 --work inference,training --num-classes 10 --rounds 3"
RACES = {
    "training": "convmix benchmark convmixer_256_8 --work training --batch-size 128 --size 32 --num-classes 10 --rounds 9",
    "inference": "convmix benchmark convmixer_768_32 convmixer_1024_20_ks9_p14 convmixer_1536_20 --rounds 7 --budget 30s",
    "convmlp_s": "convmix benchmark convmlp_s --rounds 7 --budget 90s",
    "convmlp": "convmix benchmark convmlp_m convmlp_l --rounds 7 --budget 90s",
    "int8": "convmix benchmark convmixer_768_32 --precision int8 --rounds 7 --budget 60s",
    "multiscale": "convmix benchmark multiscale_convmixer_s --rounds 7 --budget 90s",
    "batch": f"{SMALL} --sweep batch --size 32",
    "resolution": f"{SMALL} --sweep resolution --batch-size 8",
    "depth": f"{SMALL} --sweep depth --size 32 --batch-size 32",
    "kernel": f"{SMALL} --sweep kernel --size 32 --batch-size 32",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="races to run: " + ", ".join(RACES))
    names = parser.parse_args(arguments).names or list(RACES)
    if unknown := [name for name in names if name not in RACES]:
        parser.error(f"no race named {', '.join(unknown)}; there are {', '.join(RACES)}")
    failed = []
    for name in names:
        print(f"\n$ {RACES[name]}", flush=True)
        _, *rest = shlex.split(RACES[name])
        place = tables.SPEED.relative_to(tables.ROOT)
        command = [sys.executable, "-m", "convmix", *rest, "--output", str(place)]
        if subprocess.run(command, cwd=tables.ROOT, stdin=subprocess.DEVNULL).returncode:
            failed.append(name)
    tables.main([])
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
