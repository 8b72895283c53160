"""Says in a form that machines read that what is seen was generated: in the video itself, in files, in answers.

Place in the flow: encoder (each key frame) and recorder (the file) -> stream or mp4; server -> answers to browsers.

The statement is the IPTC's digital source type for media made by a trained model, the term that C2PA and the European
code of practice on marking use. In H.264 it travels as user data (ITU-T H.264, D.1.7: a SEI message of type 5, a UUID,
then text); players ignore it, and it survives recording and repackaging, though not encoding anew.
"""

from __future__ import annotations

from uuid import UUID

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
STATEMENT = f"DigitalSourceType={DIGITAL_SOURCE_TYPE}"
SEI_UUID = UUID("7d1c6b7e-95a5-4f4b-9a3c-2f6e5b8d4c17")
"""Whose user data it is: ours."""

_START = b"\x00\x00\x00\x01"
_SEI, _USER_DATA, _IDR = 6, 5, 5


def _message() -> bytes:
    payload = SEI_UUID.bytes + STATEMENT.encode("ascii")
    # Neither the UUID nor the text holds a zero byte, so nothing in it can look like a start code.
    return _START + bytes([_SEI, _USER_DATA, len(payload)]) + payload + b"\x80"


SEI = _message()


def mark_h264(picture: bytes) -> bytes:
    """Adds the statement to a picture that a decoder can start at; others come back as they are.

    Args:
        picture: an access unit in Annex B form.
    """
    at = 0
    while (at := picture.find(b"\x00\x00\x01", at)) >= 0:
        if at + 3 < len(picture) and picture[at + 3] & 0x1F == _IDR:
            # A start code may have a zero byte in front.
            at -= picture[at - 1 : at] == b"\x00"
            return picture[:at] + SEI + picture[at:]
        at += 3
    return picture
