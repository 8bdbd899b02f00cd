"""Parameters of the Open Inference Protocol: those of a request that mean something here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import InvalidRequest

PRIORITIES = (0, 1, 0, 2)  # the protocol's levels 0 to 3 as the data plane has them: 2 is default
_MAX_PARAMETERS = 64
_RESERVED = "triton_"
_ACCEPTED = "triton_enable_empty_final_response"  # every response is the final one


class Parameters(NamedTuple):
    """A request's parameters that mean something here."""

    priority: int = 0  # as the data plane has it: 0 for the default, 1 first, 2 last
    timeout: float | None = None  # seconds
    report: bool = False


def parameters(given: Mapping[str, Any]) -> Parameters:
    """The parameters of a request.

    Raises:
      InvalidRequest: too many, one of a wrong type or out of its range, or a reserved name.
    """
    if not given:
        return Parameters()
    if len(given) > _MAX_PARAMETERS:
        raise InvalidRequest(
            f"the request has {len(given)} parameters, over the limit of {_MAX_PARAMETERS}: "
            "leave some out"
        )
    for name in given:
        if name.startswith(_RESERVED) and name != _ACCEPTED:
            raise InvalidRequest(
                f"parameter {shown(name)} is not served: names that begin with triton_ are reserved"
            )
    microseconds = whole(given, "timeout", 2**63 - 1)
    report = given.get("report")
    if report is not None and report.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest("parameter report is no truth value: send bool_param")
    return Parameters(
        PRIORITIES[whole(given, "priority", len(PRIORITIES) - 1)],
        microseconds / 1e6 if microseconds else None,
        report is not None and report.bool_param,
    )


def whole(given: Mapping[str, Any], name: str, highest: int) -> int:
    """A parameter that is a whole number; 0 where it is not there.

    Args:
      given: the parameters by name.
      name: of this one.
      highest: the largest number to accept; the smallest is 0.

    Raises:
      InvalidRequest: it is none, or out of its range.
    """
    if name not in given:
        return 0
    value = given[name]
    kind = value.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise InvalidRequest(f"parameter {name} is no whole number: send int64_param")
    number = int(getattr(value, kind))
    if not 0 <= number <= highest:
        raise InvalidRequest(f"parameter {name} is {number}, expected 0 to {highest}")
    return number


def shown(text: str) -> str:
    """A caller's text, quoted and cut to what a sentence can hold."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
