"""The bytes that a speech service sends, as samples, as soon as they are whole.

Place in the flow: body of an answer -> SoundStream -> SpeechPiece.

Services are asked for raw PCM; some send a WAV file all the same, or a compressed file, or an error as JSON.

Invariants:
    * the same samples come out however the bytes were cut into chunks, also within a sample;
    * PCM and 16-bit or float WAV stream; everything else that is sound is decoded when it is complete.
"""

from __future__ import annotations

import struct

import numpy as np

from engine.audio.decode import decode_audio
from engine.audio.pcm import MAX_CHANNELS, MAX_RATE, MIN_RATE, to_int16, to_mono_float
from engine.types import PLAYOUT_RATE

_HEAD_BYTES = 12
_MAX_HEADER_BYTES = 1 << 16
_MAX_FILE_BYTES = 16 << 20
_UNKNOWN_LENGTH = 0x7FFFFFFF  # a WAV that is still being written announces this, twice this, or nothing
_FILES = (b"ID3", b"OggS", b"fLaC", b"\x1aE\xdf\xa3", b"\x00\x00\x00\x1cftyp", b"\x00\x00\x00\x20ftyp")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class SoundStream:
    """One sound on its way.

    Args:
        content_type: of the answer, without parameters.
        rate: of raw PCM, Hz.
        max_s: longest sound accepted, seconds.

    Attributes:
        rate: of the samples that come out, Hz; settled with the first of them.
    """

    def __init__(self, content_type: str, rate: int, max_s: float) -> None:
        self.rate = rate
        self._content_type = content_type
        self._max_s = max_s
        self._kind = ""  # "pcm" or "file" once known
        self._bytes = bytearray()
        self._type, self._channels = np.dtype("<i2"), 1
        self._left_bytes: int | None = None  # of the sound in a WAV that says how long it is
        self._made = 0

    def feed(self, chunk: bytes) -> np.ndarray:
        """Takes bytes.

        Returns:
            (n,) int16 mono at ``rate``, n may be 0.

        Raises:
            ValueError: this is no sound, or too long; says in a few words what it is.
        """
        self._bytes += chunk
        if not self._kind and (len(self._bytes) >= _HEAD_BYTES or self._is_text()):
            self._recognise()
        if self._kind == "file" and len(self._bytes) > _MAX_FILE_BYTES:
            raise ValueError("a sound file that is too big")
        return self._samples() if self._kind == "pcm" else np.zeros(0, np.int16)

    def end(self) -> np.ndarray:
        """The rest; blocking where a whole file has to be decoded, so call it on a thread.

        Raises:
            ValueError: as ``feed``.
            AudioInvalid: a file that cannot be decoded.
        """
        if self._kind == "file":
            self.rate = PLAYOUT_RATE
            return decode_audio(bytes(self._bytes), self._max_s)
        if not self._kind and self._bytes.startswith(b"RIFF"):
            raise ValueError("a WAV file without sound")
        self._kind = "pcm"
        return self._samples()

    def _is_text(self) -> bool:
        return self._content_type == "application/json" or self._content_type.startswith("text/")

    def _recognise(self) -> None:
        head = bytes(self._bytes[:_HEAD_BYTES])
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            self._read_wav_header()
        elif self._is_text() or head[:2] == b'{"':
            raise ValueError("text instead of sound")
        elif head.startswith(_FILES) or (
            self._content_type in ("audio/mpeg", "audio/mp3", "audio/aac") and head[0] == 0xFF and head[1] >= 0xE0
        ):
            self._kind = "file"
        else:
            self._kind = "pcm"

    def _read_wav_header(self) -> None:
        """Skips to the sound of a WAV; stays undecided while the header is incomplete."""
        at, form = 12, (0, 0, 0, 0)
        while len(self._bytes) >= at + 8:
            name, size = struct.unpack_from("<4sI", self._bytes, at)
            if name == b"data":
                kind, channels, rate, bits = form
                if (kind, bits) not in ((_PCM, 16), (_EXTENSIBLE, 16), (_FLOAT, 32)):
                    self._kind = "file"
                    return
                if not (MIN_RATE <= rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
                    raise ValueError("a damaged WAV file")
                self._kind, self.rate, self._channels = "pcm", rate, channels
                self._type = np.dtype("<f4" if kind == _FLOAT else "<i2")
                self._left_bytes = size if 0 < size < _UNKNOWN_LENGTH else None
                del self._bytes[: at + 8]
                return
            if name == b"fmt " and size >= 16:
                if len(self._bytes) < at + 24:
                    return
                kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", self._bytes, at + 8)
                form = (kind, channels, rate, bits)
            at += 8 + size + size % 2
            if at > _MAX_HEADER_BYTES:
                raise ValueError("a WAV file without sound")

    def _samples(self) -> np.ndarray:
        whole = self._type.itemsize * self._channels
        available = len(self._bytes) if self._left_bytes is None else min(len(self._bytes), self._left_bytes)
        available -= available % whole
        samples = np.frombuffer(bytes(self._bytes[:available]), self._type)
        del self._bytes[:available]
        if self._left_bytes is not None:
            self._left_bytes -= available
            if self._left_bytes < whole:
                self._bytes.clear()  # what follows the sound: notes about it
        self._made += available // whole
        if self._made > self._max_s * self.rate:
            raise ValueError("a sound without an end")
        if self._channels == 1 and self._type.kind == "i":
            return samples.astype(np.int16)
        return to_int16(to_mono_float(samples.reshape(-1, self._channels)))
