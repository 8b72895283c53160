"""Places elsewhere that sessions may be sent to, as the options name them.

Place in the flow: option ``publish`` -> PublishTarget -> ``server/outputs``.

Invariants: addresses and tokens are in no ``repr``, since keys of streams are parts of addresses.
"""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class PublishTarget(BaseModel):
    """An endpoint of WHIP or RTMP with a name of its own; as text ``NAME=URL``.

    Attributes:
        name: what the API knows it by.
        url: ``http:`` and ``https:`` are WHIP's, ``rtmp:`` and ``rtmps:`` end with the stream's key.
        token: shown to a WHIP endpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    url: str = Field(pattern=r"^(https?|rtmps?)://[^/\s@]+(/\S*)?$", max_length=2000, repr=False)
    token: str | None = Field(default=None, pattern=r"^[\x21-\x7e]+$", max_length=4000, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        name, _, url = value.partition("=")
        return {"name": name.strip(), "url": url.strip()}

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        # Of a port that is none, or half an IPv6 address, this raises ValueError.
        if not urlsplit(self.url).hostname or urlsplit(self.url).port == 0:
            raise ValueError("no server is named")
        return self


def _all_named(targets: tuple[PublishTarget, ...]) -> tuple[PublishTarget, ...]:
    if len({target.name for target in targets}) != len(targets):
        raise ValueError("two targets have one name")
    return targets


PublishTargets = Annotated[tuple[PublishTarget, ...], AfterValidator(_all_named)]
