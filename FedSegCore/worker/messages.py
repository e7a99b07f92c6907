"""JSON-RPC 2.0 messages, one a line: what comes in is checked here, what goes out is built here."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from FedSegCore.common.errors import CancelledError, FedSegError

RequestId = StrictInt | StrictStr | StrictFloat
Message = dict[str, Any]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
REQUEST_CANCELLED = -32800  # as the Language Server Protocol has it
APPLICATION_ERROR = -32000

HELP_PAGE = "docs/errors.md"


class Request(BaseModel):
    """One request, or a notification if ``id`` is None.

    Attributes:
        jsonrpc: always ``"2.0"``.
        id: chosen by the client; the reply carries it.
        method: what to do.
        params: arguments by name.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    jsonrpc: Literal["2.0"]
    id: RequestId | None = None
    method: str = Field(max_length=100)
    params: dict[str, Any] = {}


class ProtocolError(FedSegError):
    """The client broke the protocol; ``number`` is JSON-RPC's."""

    def __init__(self, number: int, code: str, what: str, request_id: RequestId | None = None) -> None:
        super().__init__(code, what, "Update FedSegSlicer: the module and its worker do not speak the same language.")
        self.number = number
        self.request_id = request_id


def parse_request(line: bytes) -> Request:
    """Return the request in one line of UTF-8 JSON.

    Raises:
        ProtocolError: it is not JSON, or not a request; carries the id where one could be read.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(PARSE_ERROR, "protocol.not-json", "A message was not JSON.") from error
    try:
        return Request.model_validate(value)
    except ValidationError as error:
        given = value.get("id") if isinstance(value, dict) else None
        known = given if isinstance(given, int | str) and not isinstance(given, bool) else None
        raise ProtocolError(
            INVALID_REQUEST, "protocol.not-a-request", f"A message was not a request: {first_fault(error)}", known
        ) from error


def first_fault(error: ValidationError) -> str:
    """Return the first fault in words (``"params.path: Field required"``), without the value that was given."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])


def result_message(request_id: RequestId | None, result: Any) -> Message:
    """Return the reply to a request that succeeded."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_message(request_id: RequestId | None, error: FedSegError) -> Message:
    """Return the reply to a request that failed: ``data`` holds code, cause, remedy and the page that explains it."""
    if isinstance(error, ProtocolError):
        number = error.number
    else:
        number = REQUEST_CANCELLED if isinstance(error, CancelledError) else APPLICATION_ERROR
    data = {"code": error.code, "cause": error.what, "remedy": error.remedy, "help": help_anchor(error.code)}
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": number, "message": error.what, "data": data}}


def notification(method: str, params: Message) -> Message:
    """Return a message that expects no reply."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def encode(message: Message) -> bytes:
    """Return the message as one line of ASCII JSON; raises TypeError or ValueError where it is not JSON (NaN)."""
    return json.dumps(message, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def help_anchor(code: str) -> str:
    """Return where an error code is explained: the heading of the error page, as GitHub makes its anchor."""
    return f"{HELP_PAGE}#{code.replace('.', '')}"
