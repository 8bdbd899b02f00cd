"""Writes the tables of docs/serving.md, or says whether they are up to date.

    python scripts/settings_table.py                  write them
    python scripts/settings_table.py --check          compare only; exit 1 where they differ
    python scripts/settings_table.py --page FILE ...  in another page

Each table stands between two comments of the page:

    <!-- settings -->
    <!-- end of settings -->
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from service.config import ServiceConfig  # noqa: E402 - found through the line above
from service.settings import table  # noqa: E402
from service.telemetry import names_table  # noqa: E402

PAGE = ROOT / "docs" / "serving.md"


def with_tables(page: str) -> str:
    """A page with its tables as they should be.

    Raises:
      ValueError: the comments of a table are not there, once and in order.
    """
    for name, lines in (("settings", table(ServiceConfig)), ("metrics", names_table())):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
            raise ValueError(f"the page has no lines {begin.strip()} and {end.strip()}: add them")
        before, after = page.split(begin)[0], page.split(end)[1]
        page = f"{before}{begin}\n{lines}\n{end}{after}"
    return page


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    arguments = parser.parse_args()
    page = arguments.page.read_text()
    try:
        new = with_tables(page)
    except ValueError as error:
        print(f"{arguments.page}: {error}", file=sys.stderr)
        return 1
    if not arguments.check:
        arguments.page.write_text(new)
    elif new != page:
        print(f"{arguments.page} is out of date: run scripts/settings_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
