"""The documents, run: every ```bash and ```python block, in order, as a reader would paste them.

Blocks of other kinds (```text, ```make) are for reading. A page's blocks share one folder; bash
blocks share one shell, which stops at the first command that fails.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md"]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    script = ["set -euo pipefail"]
    for number, (language, text) in enumerate(blocks):
        if language == "bash":
            script.append(text)
        else:
            (tmp_path / f"block{number}.py").write_text(text)
            script.append(f"python block{number}.py")
    (tmp_path / "jaxnn").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jaxnn "$@"\n')
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("jaxnn", "python"):
        (tmp_path / name).chmod(0o755)
    folder = tmp_path / "here"
    folder.mkdir()
    for block in tmp_path.glob("block*.py"):
        block.rename(folder / block.name)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}"
