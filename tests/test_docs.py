"""The documents: their commands run, their links lead somewhere, their code is the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUOTE = re.compile(r"^```py\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages(pattern: str) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in PAGES if re.search(pattern, p.read_text())]


@pytest.mark.parametrize("page", pages("```(bash|python)\n"))
def test_every_command_of_a_page_runs(page: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "run_page.py", ROOT / page, tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            "JAXNN_CACHE": str(tmp_path / "cache"),  # a page's commands compile the same again
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("page", pages(""))
def test_links_and_pictures_are_there(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} names {target}"


@pytest.mark.parametrize("page", pages("```py\n"))
def test_quoted_code_is_the_code(page: str) -> None:
    quotes = QUOTE.findall((ROOT / page).read_text())
    assert quotes
    for name, text in quotes:
        source = [line.strip() for line in (ROOT / name).read_text().splitlines()]
        for line in text.splitlines():
            assert not line.strip() or line.strip() in source, f"{name} has no line {line.strip()}"
