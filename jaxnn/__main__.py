"""`python -m jaxnn` and the command `jaxnn`: here, so that Ctrl-C is met even during imports."""

import sys


def main() -> int:
    """Runs the command line and returns its exit code."""
    try:
        from jaxnn import cli

        return cli.main()
    except KeyboardInterrupt:
        print("jaxnn: interrupted", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
