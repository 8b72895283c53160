"""Measures one lip-sync model in every way this machine can compute it, and keeps the advice that follows.

Place in the flow: weights folder (or the built-in model) -> material, int8 form, races -> ``Findings``.

Invariants:
    * the int8 form is made here, from the faces and the voice at hand, and is kept only when it is good enough;
    * advice is what was fastest on one core among what was measured just now; of two that are about as fast it is the
      more exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from engine.bench import candidates as ways
from engine.bench.gather import gather, gather_builtin
from engine.bench.material import Material
from engine.bench.race import SLICE_S, Row, merged, race, separate_cores
from engine.bench.runners import MATERIAL_FILE, WHOLE_FILE
from engine.config import Config
from engine.errors import BackendFailed
from engine.lipsync.openvino_runtime import has_bf16
from engine.lipsync.wav2lip.advice import PRECISIONS, write_advice
from engine.lipsync.wav2lip.crop import first_row_of
from engine.lipsync.wav2lip.folder import int8_file, read_variant
from engine.lipsync.wav2lip.variants import Variant

CALIBRATION_PAIRS = 96
MEASURED_PAIRS = 24
ABOUT_AS_FAST = 0.9
_CORES = 2
_NVIDIA = Path("/proc/driver/nvidia/version")

Tell = Callable[[str], None]


@dataclass(slots=True)
class Findings:
    """What was measured of one model.

    Attributes:
        name: of the weights, or ``builtin``.
        network: which network it is.
        rows: one per way.
        int8: what came of the int8 form, in words.
        advice: precision to use on this machine; empty when nothing could be measured.
    """

    name: str
    network: str
    rows: list[Row]
    int8: str = ""
    advice: str = ""


def measure_weights(folder: Path, config: Config, seconds: float, tell: Tell) -> Findings:
    """Measures a folder of Wav2Lip weights, on one core and on two, and on a GPU where there is one.

    Args:
        folder: the weights; advice, and the int8 form, are left in it.
        config: says where avatars are and which voice speaks.
        seconds: of computing for each way and number of cores.
        tell: told what goes on.

    Raises:
        WeightsInvalid, BackendFailed: the weights cannot be used.
        NotFound, AvatarInvalid: there are no faces to measure with.
    """
    from engine.lipsync.wav2lip.export import derive, export_openvino
    from engine.lipsync.wav2lip.quantise import FLOOR_DB

    variant = read_variant(folder)
    tell("converting")
    derive(folder)
    material = gather(variant, config, CALIBRATION_PAIRS)
    tell("making the int8 form")
    int8 = make_int8(folder, variant, material)
    with TemporaryDirectory(prefix="visavis-bench-") as temporary:
        scratch = Path(temporary)
        material.some(MEASURED_PAIRS).save(scratch / MATERIAL_FILE)
        export_openvino(folder, scratch / WHOLE_FILE)
        contest = ways.on_cpu(variant.size, has_bf16(), int8_file(folder) is not None)
        findings = Findings(folder.name, variant.name, _on_cores(contest, folder, scratch, seconds, tell), int8)
        if _has_gpu():
            tell("measuring on the GPU")
            findings.rows += race(ways.on_gpu(), folder, scratch, (), _rounds(seconds))
    findings.advice = advised(findings.rows, FLOOR_DB)
    if findings.advice:
        speeds = {row.candidate.precision: round(row.fps[1], 1) for row in findings.rows if _served(row)}
        write_advice(folder, findings.advice, speeds)
    return findings


def measure_builtin(config: Config, seconds: float, tell: Tell) -> Findings:
    """Measures the built-in model; its ratios are against its own f32.

    Raises:
        NotFound, AvatarInvalid: there is no face to measure with.
    """
    from engine.lipsync.builtin import BuiltinLipSync

    with TemporaryDirectory(prefix="visavis-bench-") as temporary:
        scratch = Path(temporary)
        gather_builtin(config, BuiltinLipSync.window, MEASURED_PAIRS).save(scratch / MATERIAL_FILE)
        rows = _on_cores(ways.of_builtin(has_bf16()), None, scratch, seconds, tell)
    return Findings("builtin", "builtin", rows)


def make_int8(folder: Path, variant: Variant, material: Material) -> str:
    """Makes the int8 form where it is missing; says in words what came of it."""
    if int8_file(folder) is not None:
        return "it was there already"
    try:
        from engine.lipsync.wav2lip.quantise import FLOOR_DB, quantise

        paste_row = variant.paste_from - first_row_of(variant)
        psnr_db = quantise(folder, [face[None] for face in material.faces], list(material.mels), paste_row)
    except ModuleNotFoundError:
        return "not made: it needs the package nncf (pip install nncf)"
    except BackendFailed as error:
        return f"refused: {error.message}"
    return f"made from {len(material.mels)} faces and sounds: {psnr_db:.1f} dB, of which {FLOOR_DB:.0f} are needed"


def advised(rows: Sequence[Row], least_db: float) -> str:
    """The most exact of the served precisions that are about as fast as the fastest on one core.

    Args:
        rows: what was measured.
        least_db: pictures may not be worse, whatever the speed.

    Returns:
        A precision, or nothing when none could be measured.
    """
    fit = [row for row in rows if _served(row) and (row.psnr_db is None or row.psnr_db >= least_db)]
    if not fit:
        return ""
    least = ABOUT_AS_FAST * max(row.fps[1] for row in fit)
    return next(row.candidate.precision for row in fit if row.fps[1] >= least)


def _served(row: Row) -> bool:
    # They come in the order of PRECISIONS, the most exact first.
    return row.candidate in [ways.served(precision) for precision in PRECISIONS] and 1 in row.fps and not row.failed


def _on_cores(
    contest: Sequence[ways.Candidate], weights: Path | None, scratch: Path, seconds: float, tell: Tell
) -> list[Row]:
    cpus = separate_cores(_CORES)
    # Side by side on one core is the plain loop again.
    alone = [way for way in contest if way.runtime != "torch" or not way.side_by_side]
    rows: list[Row] = []
    for count in range(1, len(cpus) + 1):
        tell(f"measuring on {count} core{'s' * (count > 1)}: {len(contest)} ways, {_rounds(seconds)} rounds")
        found = race(alone if count == 1 else contest, weights, scratch, cpus[:count], _rounds(seconds))
        rows = merged(rows, found)
    order = list(contest)
    return sorted(rows, key=lambda row: order.index(row.candidate))


def _rounds(seconds: float) -> int:
    return max(1, int(np.ceil(seconds / SLICE_S)))


def _has_gpu() -> bool:
    if not _NVIDIA.exists():
        return False
    import torch

    return torch.cuda.is_available()
