"""Everything that can go wrong on purpose: a typed error with a code, a sentence, and what to do about it.

    VisavisError
    ├── InvalidInput            the caller's data cannot be used; nothing else is affected
    │   ├── TextInvalid         empty or over the limit
    │   ├── AudioInvalid        unreadable, empty, too long, or in the wrong format
    │   ├── OfferInvalid        a session description that is none
    │   ├── PortraitInvalid     a photo or video that cannot become an avatar, or is not allowed to
    │   └── WeightsInvalid      a checkpoint or a folder of weights that cannot be used
    ├── NotFound                no such avatar, session or model
    ├── AccessDenied            a key or token is missing, wrong or not for this
    ├── AvatarInvalid           an avatar folder that is incomplete, inconsistent or without consent
    ├── ConfigInvalid           an option with an unusable value
    ├── Busy                    at capacity; try again later
    ├── Closed                  used after it was closed
    ├── Cancelled               given up because the caller wanted it
    ├── DiskFull                no room on the disk; nothing was changed
    └── BackendFailed           a model or service failed while working
        ├── DownloadFailed      a file could not be fetched
        └── ModelAway           the process that runs the models is not there; it comes back by itself

Codes are stable and machine-readable; messages are for people and say what to do.
"""

from __future__ import annotations


class VisavisError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        code: stable snake_case identifier, e.g. ``text_too_long``.
        message: one or two sentences for a person, including what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def to_dict(self) -> dict[str, str]:
        """The error as the wire shows it: ``{"code", "message"}``."""
        return {"code": self.code, "message": self.message}


class InvalidInput(VisavisError):
    """The caller's data cannot be used."""


class TextInvalid(InvalidInput):
    """Text that is empty or over the limit."""


class AudioInvalid(InvalidInput):
    """Sound that is unreadable, empty, too long, or in the wrong format."""


class OfferInvalid(InvalidInput):
    """A session description that cannot be answered."""


class PortraitInvalid(InvalidInput):
    """A photo or video that cannot become an avatar, or is not allowed to."""


class WeightsInvalid(InvalidInput):
    """A checkpoint or a folder of weights that cannot be used."""


class NotFound(VisavisError):
    """No such avatar, session or model."""


class AvatarInvalid(VisavisError):
    """An avatar folder that cannot be used."""


class ConfigInvalid(VisavisError):
    """An option with an unusable value."""


class AccessDenied(VisavisError):
    """A key or token is missing, wrong or not for this."""


class Busy(VisavisError):
    """At capacity; the same call may succeed later.

    Attributes:
        retry_after_s: when it is worth while to try again; None where that is not known.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class Closed(VisavisError):
    """Used after it was closed."""


class Cancelled(VisavisError):
    """Given up because the caller wanted it."""


class DiskFull(VisavisError):
    """No room on the disk; nothing was changed."""


class BackendFailed(VisavisError):
    """A model or service failed while working."""


class DownloadFailed(BackendFailed):
    """A file could not be fetched; what arrived so far is kept for the next attempt where it can be continued."""


class ModelAway(BackendFailed):
    """The process that runs the models is not there at the moment; the same call succeeds when it is back."""
