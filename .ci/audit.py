"""What convmix is made of and what is known against it: dist/convmix-sbom.json (CycloneDX), then pip-audit, both of requirements.lock.

    python .ci/audit.py    exit code 0: nothing known; 1: vulnerabilities, a line each; 2: it could not be found out

Needs cyclonedx-bom and pip-audit beside this Python, and for the second the network; `make audit` installs and runs them.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
SBOM = ROOT / "dist" / "convmix-sbom.json"
_TOOLS = Path(sys.executable).parent


def main() -> None:
    write_sbom()
    command = [str(_TOOLS / "pip-audit"), "-r", str(LOCK), "--require-hashes", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run([*command, "--format", "json", "--timeout", "15"], capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        _end(2, f"error: pip-audit ends with {done.returncode}: {last[:200]}")
    _end(*verdict(found))


def write_sbom() -> None:
    SBOM.parent.mkdir(exist_ok=True)
    command = [
        str(_TOOLS / "cyclonedx-py"),
        "requirements",
        str(LOCK),
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--output-reproducible",
    ]
    done = subprocess.run([*command, "-o", str(SBOM)], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        _end(2, f"error: cyclonedx-py ends with {done.returncode}: {last[:200]}")
    print(f"{SBOM.relative_to(ROOT)}: {len(json.loads(SBOM.read_text())['components'])} components")


def verdict(found: dict[str, Any]) -> tuple[int, str]:
    """Exit code and lines, of what pip-audit says; packages that it could not ask about are no clean ones."""
    packages = found["dependencies"]
    known = [
        f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no release'}"
        for p in packages
        for v in p.get("vulns", ())
    ]
    unasked = [p for p in packages if "skip_reason" in p]
    if unasked:
        said = f"error: {len(unasked)} of {len(packages)} packages could not be audited, the first: {unasked[0]['skip_reason'][:200]}"
        return 2, "\n".join([*known, said])
    return (1, "\n".join(known)) if known else (0, f"{len(packages)} packages, no vulnerability known")


def _end(code: int, words: str) -> None:
    print(words, file=sys.stderr if code else sys.stdout)
    sys.exit(code)


if __name__ == "__main__":
    main()
