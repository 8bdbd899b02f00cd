"""Errors of the service. The server raises the first two, the client the first and the last."""

from jaxnn.errors import JaxnnError, RunError


class InvalidRequest(JaxnnError, ValueError):  # noqa: N818 - reads as the status that it becomes
    """A request that cannot be answered as it stands: the caller has to change it."""


class Stopping(JaxnnError, RuntimeError):  # noqa: N818 - a state, not a mistake
    """The server takes no more requests: another may, or this one when it is back."""

    exit_code = 1


class ServiceError(RunError):
    """The request was good, but the server could not be reached or did not answer it.

    `code` is the gRPC status code's name, such as "UNAVAILABLE".
    """

    def __init__(self, message: str, code: str) -> None:
        """Keep the status code beside the sentence."""
        super().__init__(message)
        self.code = code
