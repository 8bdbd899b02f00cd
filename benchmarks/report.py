"""Where results go: a JSON file a question, and the tables of pages in docs/."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures.md"
PAGES = {"pictures": PICTURES, "rejection": PICTURES}  # of questions that have another
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "torch")


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names this machine or its folders."""
    versions = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name).split("+")[0]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "packages": versions,
    }


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def place(about: dict[str, Any]) -> str:
    """One sentence on the machine, for above a table."""
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    load = "" if not about["load"] else f", load {about['load'][0]} before the run"
    return (
        f"Measured on {about['date']}: {about['cores']} cores of {about['cpu']}{load}; "
        f"Python {about['python']}, {packages}."
    )


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replaced(page: str, question: str, table: str) -> str:
    """The page with the text between a question's two markers replaced.

    The markers are the lines <!-- bench:QUESTION --> and <!-- /bench:QUESTION -->.

    Raises:
      ValueError: the page does not hold each of the two exactly once, the first one first.
    """
    start, end = f"<!-- bench:{question} -->\n", f"<!-- /bench:{question} -->\n"
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise ValueError(f"the page needs one {start.strip()} and one {end.strip()} after it")
    before, rest = page.split(start)
    return f"{before}{start}\n{table.strip()}\n\n{end}{rest.split(end)[1]}"


def page_of(question: str) -> Path:
    """The page that a question's table is written into."""
    return PAGES.get(question, PAGE)


def publish(question: str, result: dict[str, Any], table: str) -> None:
    """Writes the JSON file, and the table into the page.

    Raises:
      ValueError: there is no such page, or it has no place for the table.
    """
    page = page_of(question)
    if not page.is_file():
        raise ValueError(f"{page.name} is not there: write it with the question's two markers")
    text = replaced(page.read_text(), question, table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{question}.json").write_text(json.dumps(result, indent=1) + "\n")
    page.write_text(text)


def main(question: str, module: ModuleType) -> None:
    """A question asked alone: prints its table, and publishes it only where that is asked for."""
    parser = argparse.ArgumentParser(description=(module.__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, as in `make bench`")
    parser.add_argument("--publish", action="store_true", help="rewrite the JSON and the page")
    options = parser.parse_args()
    result = {**machine(), "quick": options.quick, **module.run(options.quick)}
    if "left_out" in result:
        print(f"{question} is left out: {result['left_out']}")
        return
    table = f"{place(result)}\n\n{module.table(result)}"
    print(table)
    if options.publish:
        publish(question, result, table)
