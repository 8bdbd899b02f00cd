"""Every error that jaxnn raises on purpose.

    JaxnnError           what a caller can catch
    ├── ShapeError       an array does not fit the layers, or the batch
    ├── DataError        a file, picture or data set that cannot be used
    ├── ConfigError      a setting that cannot be used
    ├── CheckpointError  a model or state file that cannot be used
    └── RunError         the input was good, but the run failed

A message is one sentence that names both sides and says what to do. The command line prints it
and exits with `exit_code`: 2 for bad input, 1 for a run that failed.
"""


class JaxnnError(Exception):
    """What a caller can catch; its text is one sentence for a person."""

    exit_code = 2


class ShapeError(JaxnnError, ValueError):
    """An array does not have the shape, or the range, that the layers expect."""


class DataError(JaxnnError, ValueError):
    """A file, picture or data set that cannot be used."""


class ConfigError(JaxnnError, ValueError):
    """A setting that cannot be used."""


class CheckpointError(JaxnnError, ValueError):
    """A model or state file that is missing, damaged, foreign or from the future."""


class RunError(JaxnnError, RuntimeError):
    """The input was good, but the run failed: it diverged, or a server did not answer."""

    exit_code = 1
