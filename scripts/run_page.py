"""Runs every ```bash and ```python block of a page, in order, as a reader would paste them.

    python scripts/run_page.py PAGE FOLDER

All blocks run in FOLDER, in one shell that stops at the first command that fails. Blocks of other
kinds are for reading. `jaxnn` and `python` mean the running Python's.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(page: Path, folder: Path) -> int:
    """Runs a page's blocks in a folder; the exit code of the first that fails, or 0."""
    folder.mkdir(parents=True, exist_ok=True)
    script = ["set -euo pipefail"]
    with tempfile.TemporaryDirectory() as temporary:
        tools = Path(temporary)
        for name, words in (("jaxnn", "-m jaxnn"), ("python", "")):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            tool.chmod(0o755)
        for number, (language, text) in enumerate(BLOCK.findall(page.read_text())):
            if language == "bash":
                script.append(text)
            else:
                block = tools / f"block{number}.py"
                block.write_text(text)
                script.append(f"python {block}")
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(  # noqa: S603
            ["bash", "-c", "\n".join(script)],  # noqa: S607
            cwd=folder,
            env=environment,
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]).resolve(), Path(sys.argv[2])))
