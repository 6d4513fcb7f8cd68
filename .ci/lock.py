"""Writes requirements.lock: every package that the tests use, with the hashes of its files, for all Pythons and systems; it names no index.

python .ci/lock.py            resolve anew, within what the file says already; needs uv and the package index
python .ci/lock.py --upgrade  to the newest releases
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
_SETTINGS = (
    "--extra", "dev", "--universal", "--generate-hashes", "--no-annotate", "--no-header",
    "--quiet",
)  # fmt: skip
_HEAD = """# What `pip install convmix[dev]` may install, with the hashes of every file. `make lock` writes it, `make LOCKED=1 ...` uses it:
#   pip install --require-hashes --no-deps -r requirements.lock
"""


def main() -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        sys.exit("error: uv, which resolves for all systems at once, is not installed; pip install uv")
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest
    settings = [*_SETTINGS, "--python-version", oldest[1], *sys.argv[1:]]
    done = subprocess.run([uv, "pip", "compile", "pyproject.toml", *settings, "-o", LOCK.name], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: uv cannot resolve: {done.stderr.strip()}")
    text = re.sub(r"\A(#.*\n|\n)*", "", LOCK.read_text())
    LOCK.write_text(_HEAD + text)
    print(f"{LOCK.name}: {len(re.findall('^[a-z0-9]', text, re.MULTILINE))} packages")


if __name__ == "__main__":
    main()
