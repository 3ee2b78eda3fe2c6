"""
The exceptions of this package: one class where a caller would act differently.

A leaf: it imports nothing of ours, so every other module may raise what stands here.
"""

from __future__ import annotations


class DISError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigurationError(DISError, ValueError):
    """
    An option is missing, malformed or out of range.

    Raised by constructors, at once, with the option's name and the offending value.
    The value of a secret option is never part of the message.
    """


class MissingOptionError(ConfigurationError):
    """
    An option without a default was neither given nor found in the environment.

    Attributes:
        option: its name.
        variables: the environment variables that it would have been taken from.
    """

    def __init__(self, option: str, *variables: str) -> None:
        super().__init__(f"{option} is missing: give it as an option, or set {' or '.join(variables)}")
        self.option = option
        self.variables = variables

    def __reduce__(self) -> tuple[type[MissingOptionError], tuple[str, ...]]:
        return type(self), (self.option, *self.variables)


class DeliveryError(DISError):
    """
    One attempt to talk to DIS failed.

    `DISClient` raises the subclasses below.
    `DISHandler` never lets one out: it retries, or hands the records to the fallback.
    """


class NotSentError(DeliveryError):
    """The request never reached the service (no connection), so sending it again is safe."""


class UnknownOutcomeError(DeliveryError):
    """
    The request may have arrived, but no usable answer did, so sending it again may store it twice.

    Attributes:
        timed_out: True when the attempt ran out of time, False when the connection broke.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class ProtocolError(UnknownOutcomeError):
    """
    An answer came but makes no sense (truncated, not JSON, a list of the wrong length, a 1xx or an unexpected 2xx).

    Whether the records were stored is unknown.

    Attributes:
        status: HTTP status of the answer, None when there was none to read.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServiceError(DeliveryError):
    """
    DIS, or something in front of it, refused the whole request.

    Attributes:
        status: HTTP status, such as 400.
        code: DIS's error code, such as ``"DIS.4301"``; empty when the answer carried none.
        message: the service's own text, cleaned of control characters, at most a few hundred characters.
        request_id: what to quote to Huawei's support; empty when the answer carried none.
        retry_after: seconds that the service asked to wait before the next request, or None.
    """

    def __init__(
        self, status: int, code: str = "", message: str = "", request_id: str = "", retry_after: float | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(status, code, message, request_id, retry_after)

    def __str__(self) -> str:
        what = f"HTTP {self.status}" + (f", {self.code}" if self.code else "")
        text = f"DIS refused the request ({what}): {self.message or 'no message'}"
        return f"{text} [request id {self.request_id}]" if self.request_id else text
