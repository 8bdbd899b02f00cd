"""All questions in their short form: prints their tables and publishes them.

    python -m benchmarks [QUESTION ...] [--full]

Writes benchmarks/results/QUESTION.json and the tables in docs/performance.md. Any question can be
asked alone, and printed only: `python -m benchmarks.epoch`.
"""

import argparse
import importlib
import time

from benchmarks import report

QUESTIONS = {
    "epoch": "benchmarks.epoch",
    "cold-start": "benchmarks.cold_start",
}


def main() -> None:
    """Asks the questions one after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--full", action="store_true", help="more repeats")
    options = parser.parse_args()
    unknown = set(options.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"no question {', '.join(sorted(unknown))}: choose of {', '.join(QUESTIONS)}")
    for question in options.questions or QUESTIONS:
        module = importlib.import_module(QUESTIONS[question])
        about = report.machine()  # before the run adds to the load
        started = time.perf_counter()
        found = module.run(quick=not options.full)
        if "left_out" in found:
            print(f"{question} is left out: {found['left_out']}\n")
            continue
        result = {**about, "quick": not options.full, **found}
        table = f"{report.place(result)}\n\n{module.table(result)}"
        print(f"{question}, {time.perf_counter() - started:.0f} s\n\n{table}\n", flush=True)
        report.publish(question, result, table)


if __name__ == "__main__":
    main()
