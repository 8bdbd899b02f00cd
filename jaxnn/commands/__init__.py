"""One dataclass a command: its fields are the flags, `run(argv)` does the work.

What only a command needs is imported inside `run`, so that `jaxnn --help` loads no JAX.
"""
