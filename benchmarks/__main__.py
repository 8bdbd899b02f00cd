"""The questions in their short form: prints their tables and publishes them.

    python -m benchmarks [QUESTION ...] [--full] [--print]

Without a name all of the short set. Writes benchmarks/results/QUESTION.json, the tables in
docs/performance.md or docs/pictures.md, and the figure of a question that has one; prints only
where that is asked for.
"""

import argparse
import importlib
import time
from typing import NamedTuple

from benchmarks import report


class Question(NamedTuple):
    """A module with `run` and `table`, and with `figure` where it draws one."""

    module: str
    short: bool = True  # in the set that is asked where none is named


QUESTIONS = {
    "epoch": Question("benchmarks.epoch"),
    "cold-start": Question("benchmarks.cold_start"),
    "ensemble": Question("benchmarks.ensemble"),
    "stream": Question("benchmarks.stream"),
    "growth": Question("benchmarks.growth", short=False),
    "families": Question("benchmarks.families", short=False),
    "lstm_epoch": Question("benchmarks.lstm_epoch", short=False),
    "growth_families": Question("benchmarks.growth_families", short=False),
    "gpu": Question("benchmarks.gpu", short=False),
    "serving": Question("benchmarks.serving", short=False),
    "serving_families": Question("benchmarks.serving_families", short=False),
    "pictures": Question("benchmarks.pictures", short=False),
    "rejection": Question("benchmarks.rejection", short=False),
}


def main() -> None:
    """Asks the questions one after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--full", action="store_true", help="more repeats")
    parser.add_argument("--print", action="store_true", help="publish nothing")
    options = parser.parse_args()
    unknown = set(options.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"no question {', '.join(sorted(unknown))}: choose of {', '.join(QUESTIONS)}")
    short = [name for name, question in QUESTIONS.items() if question.short]
    for question in options.questions or short:
        module = importlib.import_module(QUESTIONS[question].module)
        about = report.machine()  # before the run adds to the load
        started = time.perf_counter()
        found = module.run(quick=not options.full)
        if "left_out" in found:
            print(f"{question} is left out: {found['left_out']}\n")
            continue
        result = {**about, "quick": not options.full, **found}
        table = f"{report.place(result)}\n\n{module.table(result)}"
        print(f"{question}, {time.perf_counter() - started:.0f} s\n\n{table}\n", flush=True)
        if options.print:
            continue
        report.publish(question, result, table)
        if hasattr(module, "figure"):
            from jaxnn.plots import style

            style.save(module.figure(result), report.PAGE.parent / "figures" / f"{question}.png")


if __name__ == "__main__":
    main()
