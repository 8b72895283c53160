"""Makes the int8 form of a Wav2Lip network, and keeps it only when nobody could tell.

Place in the flow: ``openvino/speak.xml`` + faces and sounds to calibrate with -> ``openvino/speak_int8.xml``.

Invariants:
    * a kept file passed the floor on faces and sounds it was not calibrated with;
    * needs the package ``nncf``, which nothing else does.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino as ov

from engine.errors import BackendFailed
from engine.lipsync.openvino_runtime import has_bf16
from engine.lipsync.wav2lip.export import derive
from engine.lipsync.wav2lip.folder import INT8_FILE, SPEAK_FILE
from engine.lipsync.wav2lip.speaker import Features, OpenVinoSpeaker

FLOOR_DB = 38.0
"""Least PSNR of the pasted rows against f32."""
_KEPT_LAST = 2
_HELD_OUT_EVERY = 3


def quantise(folder: Path, faces: Sequence[np.ndarray], mels: Sequence[np.ndarray], paste_row: int) -> float:
    """Quantises, measures and keeps or refuses.

    Args:
        folder: a folder of Wav2Lip weights.
        faces: (1, 6, S, S) float32 inputs of real crops, at least 30; every third one is held out for the measurement.
        mels: (80, 16) float32 windows of real speech, as many.
        paste_row: first row of the strip that belongs to the lower half.

    Returns:
        PSNR of the held-out pictures' pasted rows against f32, dB.

    Raises:
        ModuleNotFoundError: ``nncf`` is not installed.
        BackendFailed: ``int8_too_coarse``; nothing is kept then.
    """
    import nncf

    derived = derive(folder)
    exact = OpenVinoSpeaker(derived, None, 1, "f32")
    jobs = [(np.ascontiguousarray(mel, np.float32)[None, None], exact.encode_face(face))
            for face, mel in zip(faces, mels, strict=True)]  # fmt: skip
    held_out = jobs[::_HELD_OUT_EVERY]
    seen = [job for index, job in enumerate(jobs) if index % _HELD_OUT_EVERY]
    model = ov.Core().read_model(derived / SPEAK_FILE)
    convolutions = [op.get_friendly_name() for op in model.get_ordered_ops()
                    if op.get_type_name() in ("Convolution", "ConvolutionBackpropData")]  # fmt: skip
    # Rounding the layers next to the sound and to the pixels costs most of the quality and gains next to nothing.
    spared = [convolutions[0], *convolutions[-_KEPT_LAST:]]
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # it draws bars where a program's own output belongs
        coarse = nncf.quantize(
            model, nncf.Dataset([[mel, *features] for mel, features in seen]), preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(seen), ignored_scope=nncf.IgnoredScope(names=spared),
        )  # fmt: skip
    with TemporaryDirectory(prefix=".int8-", dir=derived) as unfinished:
        path = Path(unfinished) / INT8_FILE
        ov.save_model(coarse, path, compress_to_fp16=False)
        rounded = OpenVinoSpeaker(derived, path, 1, "bf16" if has_bf16() else "f32")
        psnr_db = psnr_of(exact, rounded, held_out, paste_row)
        if psnr_db < FLOOR_DB:
            raise BackendFailed(
                "int8_too_coarse", f"In int8 these weights give {psnr_db:.1f} dB, less than {FLOOR_DB:.0f}; int8 is "
                "not used with them."
            )
        # The weights first: the file that is looked for is complete when it appears.
        path.with_suffix(".bin").replace(derived / Path(INT8_FILE).with_suffix(".bin"))
        path.replace(derived / INT8_FILE)
    return psnr_db


def psnr_of(
    exact: OpenVinoSpeaker, other: OpenVinoSpeaker, jobs: Sequence[tuple[np.ndarray, Features]], paste_row: int
) -> float:
    """PSNR of another form's pixels against the exact one's, over the pasted rows of all jobs, dB."""
    squares = []
    for mel, features in jobs:
        wanted, got = (speaker.speak(mel, [features])[0, paste_row:].astype(np.float32) for speaker in (exact, other))
        squares.append(np.mean((wanted - got) ** 2))
    return float(10 * np.log10(255**2 / max(np.mean(squares), 1e-9)))
