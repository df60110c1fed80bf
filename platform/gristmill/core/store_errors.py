"""What the clients of object stores raise, and what it says."""

import errno
import re

PASSING_KINDS = {
    *("botocore.ConnectionError", "botocore.HTTPClientError", "aiohttp.ClientConnectionError"),
    *("azure.ServiceRequestError", "azure.ServiceResponseError", "google.TransportError"),
}
"""What clients of stores raise that is no OSError when nobody answers."""
PASSING_ERRNOS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.EAGAIN}
"""As s3fs gives 503 (slow down), 500 and 409."""


def passing(error: BaseException) -> bool:
    """Whether a store that raises this, and does not say so by its class, may answer in a while:
    nobody there, 429 and 5xx."""
    if isinstance(error, OSError) and error.errno in PASSING_ERRNOS:
        return True
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).mro()}
    status = str(getattr(error, "status_code", None) or getattr(error, "code", None) or "")
    return bool(kinds & PASSING_KINDS) or bool(re.fullmatch(r"429|5\d\d", status))


def said(error: Exception) -> str:
    """Its kind and words, on one line."""
    text = " ".join(str(error).split()).rstrip(".") or "no reason given"
    return f"{type(error).__name__}: {text}"
