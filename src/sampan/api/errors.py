"""From failure to answer: the one table from a failure's kind to its HTTP status.

Law: a client reads one line of Docker's wording as ``{"message": …}`` and never a traceback. A failure that
is no `Failure` is a bug of ours, unless the host is broken or has no more of something: it is logged with the
request's number, and the client is told that number.
"""

from __future__ import annotations

import logging

from sampan import errors
from sampan.api.responses import Response, json_response

log = logging.getLogger("sampan.api")

STATUS: tuple[tuple[type[errors.Failure], int], ...] = (
    (errors.InvalidArgument, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.NotImplemented, 501),
    (errors.Unavailable, 503),
    (errors.Internal, 500),
)
"""First match wins; subclasses of a kind share its status."""


class BodyAborted(ConnectionError):
    """The client went away, or broke the protocol, before its request's body was complete."""


def status_of(failure: errors.Failure) -> int:
    """HTTP status of a failure."""
    if isinstance(failure, errors.StartFailed):
        # Docker blames the request when the program cannot be run, itself for everything else.
        return 400 if failure.exit_code in (125, 126, 127) else 500
    for kind, status in STATUS:
        if isinstance(failure, kind):
            return status
    return 500


def with_prefix(prefix: str, failure: errors.Failure) -> errors.Failure:
    """A failure of the same kind whose message begins with ``prefix`` (whatever its case)."""
    message = str(failure)
    if message.lower().startswith(prefix.lower()):
        return failure
    for kind, _ in STATUS:
        if isinstance(failure, kind):
            return kind(prefix + message)
    return errors.Internal(prefix + message)


def message_of(error: BaseException, request_number: int) -> str:
    """The one line that a client reads; an unexpected error is logged in full under the request's number."""
    error = errors.of_host(error) or error
    if isinstance(error, errors.Failure):
        if isinstance(error, errors.HostFailure):
            log.error("request %d: %s", request_number, error)
        elif isinstance(error, errors.Internal):
            log.error("request %d: %s", request_number, error, exc_info=error)
        return " ".join(str(error).splitlines()) or type(error).__name__
    log.error("request %d failed", request_number, exc_info=error)
    return f"internal error: {type(error).__name__} (request {request_number} in the daemon's log)"


def error_response(error: BaseException, request_number: int) -> Response:
    """The answer to a request whose handler raised ``error``."""
    status = status_of(error) if isinstance(error, errors.Failure) else 500
    return message_response(status, message_of(error, request_number))


def message_response(status: int, message: str) -> Response:
    """Docker's JSON shape of an error."""
    return json_response({"message": message}, status=status)
