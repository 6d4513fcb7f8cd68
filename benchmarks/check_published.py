"""Fetches every published set of weights and says whether it is what it should be: for a person with a network, once a release.

    make check-published                        or: python benchmarks/check_published.py [NAME ...] [--record]

For each: the file of the Hub or of its authors is fetched (or taken from the cache), its SHA-256 compared with the one that its host tells
(the Hub for every file, GitHub for a release) and with the one recorded in benchmarks/published.json, its tensors loaded the way
that `--pretrained` goes, and the logits of one fixed image compared with those recorded, and where timm has the architecture with those
of timm's own code on the same file. --record writes down the hashes and logits of what passed, so that later calls notice a change.
Exit code 1 where anything is wrong. Needs no GPU; about 0.6 GB are fetched.
"""

import argparse
import hashlib
import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from convmix.errors import ConvmixError
from convmix.models import published_files, weights
from convmix.models.catalog import TIMM_OWN, create_model
from convmix.models.published import PUBLISHED, Published

RECORD = Path(__file__).resolve().parent / "published.json"
GITHUB_API = "https://api.github.com"
TOLERANCE = 1e-4  # of the largest logit: other processors sum in another order
KEPT_LOGITS = 16  # the first of them are recorded, and the place of the largest


@dataclass
class Check:
    """What was found out about one set of weights."""

    name: str
    source: str
    mib: float = 0.0
    sha256: str = ""
    told_by_host: str = ""  # the host's own SHA-256; "" where it tells none
    logits: list[float] = field(default_factory=list)
    top: int = -1
    notes: list[str] = field(default_factory=list)  # said, and no failure
    faults: list[str] = field(default_factory=list)


def check(name: str, recorded: dict[str, Any]) -> Check:
    """Everything about one set of weights; never raises for what a network or a file may do."""
    published = PUBLISHED[name]
    found = Check(name, published.hub_id or published.url)
    try:
        file = weights.fetched(name)
        found.mib, found.sha256 = file.stat().st_size / 2**20, _sha256(file)
        found.told_by_host = _told_by_host(published)
        model = create_model(name, pretrained=True).eval()
    except (ConvmixError, OSError) as error:
        found.faults.append(str(error))
        return found
    image = fixed_image(published)
    with torch.no_grad():
        logits = model(image)[0]
    found.logits, found.top = [round(float(v), 6) for v in logits[:KEPT_LOGITS]], int(logits.argmax())
    _compare_hashes(found, recorded)
    _compare_logits(found, logits, recorded)
    if (theirs := _timms_logits(name, file, image)) is not None and (apart := _apart(logits, theirs)) > TOLERANCE:
        found.faults.append(f"timm's own network answers differently, by {apart:.1e} of the largest logit")
    if not logits.isfinite().all():
        found.faults.append("logits that are not finite")
    return found


def fixed_image(published: Published) -> Tensor:
    """1,3,H,W: the same smooth picture everywhere, without a generator that a version might change."""
    height, width = published.size
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([torch.sin(5 * rows) * columns, torch.cos(4 * columns + rows), rows * columns * 2])[None]


def _sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _told_by_host(published: Published) -> str:
    """The SHA-256 that the Hub or GitHub has of the file; nothing where the host tells none."""
    if published.hub_id:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        etag = get_hf_file_metadata(hf_hub_url(published.hub_id, "model.safetensors", endpoint=published_files.HUB_ENDPOINT)).etag
        return etag if etag and len(etag) == 64 else ""
    parts = urllib.parse.urlsplit(published.url)
    steps = parts.path.strip("/").split("/")
    if parts.netloc != "github.com" or steps[2:4] != ["releases", "download"]:
        return ""
    owner, repository, _, _, tag, file = steps
    with urllib.request.urlopen(
        f"{GITHUB_API}/repos/{owner}/{repository}/releases/tags/{tag}", timeout=published_files.TIMEOUT_S
    ) as answer:
        assets = json.load(answer)["assets"]
    return next((str(a.get("digest") or "").removeprefix("sha256:") for a in assets if a["name"] == file), "")


def _compare_hashes(found: Check, recorded: dict[str, Any]) -> None:
    if found.told_by_host and found.told_by_host != found.sha256:
        found.faults.append(f"SHA-256 {found.sha256[:12]}..., its host tells {found.told_by_host[:12]}...")
    if recorded and recorded["sha256"] != found.sha256:
        found.faults.append(f"SHA-256 {found.sha256[:12]}..., recorded was {recorded['sha256'][:12]}...")
    if not found.told_by_host:
        found.notes.append("its host tells no hash")


def _compare_logits(found: Check, logits: Tensor, recorded: dict[str, Any]) -> None:
    if not recorded:
        found.notes.append("no logits recorded yet: --record")
        return
    apart = (logits[:KEPT_LOGITS] - torch.tensor(recorded["logits"])).abs().max() / logits.abs().max()
    if apart > TOLERANCE or found.top != recorded["top"]:
        found.faults.append(f"other logits than recorded, by {float(apart):.1e} of the largest")


def _timms_logits(name: str, file: Path, image: Tensor) -> Tensor | None:
    """What timm's own code makes of the file; None where timm has no such architecture, or names its tensors otherwise."""
    import timm

    if name not in TIMM_OWN:
        return None
    theirs = timm.create_model(name).eval()
    theirs.load_state_dict(weights.read_checkpoint(file))
    with torch.no_grad():
        return theirs(image)[0]


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def table(checks: Sequence[Check]) -> Table:
    """A row per set of weights."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "from", "MiB", "SHA-256", "host's", "first logit", "class", "verdict"):
        shown.add_column(column, overflow="fold", justify="right" if column in ("MiB", "first logit", "class") else "left")
    for c in checks:
        host = "-" if not c.told_by_host else "same" if c.told_by_host == c.sha256 else "other"
        verdict = "; ".join(c.faults) if c.faults else "right" + (f" ({'; '.join(c.notes)})" if c.notes else "")
        first = f"{c.logits[0]:.4f}" if c.logits else ""
        shown.add_row(c.name, c.source, f"{c.mib:.1f}", c.sha256[:16], host, first, str(c.top) if c.logits else "", verdict)
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of the published models; all where none is named")
    parser.add_argument("--record", action="store_true", help="write down the hashes and logits of what passed")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in PUBLISHED]:
        parser.error(f"{unknown[0]} has no published weights; those that have: {', '.join(PUBLISHED)}")
    recorded = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    checks = [check(name, recorded.get(name, {})) for name in asked.names or PUBLISHED]
    Console(width=200).print(table(checks))
    wrong = [c.name for c in checks if c.faults]
    if asked.record:
        recorded |= {c.name: {"sha256": c.sha256, "logits": c.logits, "top": c.top} for c in checks if not c.faults}
        RECORD.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n")
        print(f"recorded in {RECORD}: {len(checks) - len(wrong)} of {len(checks)}")
    print(f"{len(checks) - len(wrong)} of {len(checks)} right" + (f"; wrong: {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
