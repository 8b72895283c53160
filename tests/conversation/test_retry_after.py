"""How long a service asks its clients to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from engine.conversation.retry_after import retry_after_s


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "1e9",
        "9" * 400,
        "Mon, 1 Jan 2020 99999999999999999999:00:00 GMT",
        "Mon, 1 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 32 Jan 2020 00:00:00 GMT",
        "Mon, 1 Jan 2020 00:00:00 +99999999999999999999",
    ],
)
def test_rubbish_asks_for_nothing(value: str) -> None:
    assert retry_after_s({"Retry-After": value}) is None


def test_seconds_and_dates_are_understood() -> None:
    assert retry_after_s({}) is None
    assert retry_after_s({"Retry-After": "1.5"}) == 1.5
    assert retry_after_s({"Retry-After": "Mon, 1 Jan 2020 00:00:00 GMT"}) == 0.0
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 <= (retry_after_s({"Retry-After": later}) or 0) <= 30
