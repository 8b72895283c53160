"""Everything from nothing: assets -> training data -> networks -> files of the product -> figures, stage by stage.

Place in the flow: ``python -m engine studio all`` -> one process per stage -> ``WORK/model`` and ``WORK/figures``.

Invariants:
    * a finished stage leaves a mark with its command, and is skipped as long as the command stays the same;
    * stages that were cut short go on where their own module can: drawing, picture training;
    * the product's own files are never touched: the new model lies in ``WORK/model`` until it is copied.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BackendFailed, NotFound
from engine.evaluate import talkers

_BEAMING_PEOPLE = 260
_PEOPLE, _HELD_OUT_PEOPLE = 800, 40
_PICTURE_MINUTES, _AUDIO_STEPS, _SPEECH_HOURS = 65.0, 1200, 4.0
_OPENINGS = Path(talkers.__file__).with_name("talkers.json")
_AVATARS = ("maya", "leo", "amara", "kenji")


@dataclass(frozen=True)
class Stage:
    """One step.

    Attributes:
        name: of its mark.
        words: of the command after ``python -m``.
        about: what it does, for people.
    """

    name: str
    words: tuple[str, ...]
    about: str


@dataclass(frozen=True)
class Plan:
    """What is there and what is wanted.

    Attributes:
        assets: unpacked assets, or where they will be.
        work: directory for everything that is made.
        archives: the asset archives; None when ``assets`` is unpacked already.
        bpy_python: interpreter with bpy for avatars; None leaves them out.
        data: folder with ``faces/grid``, ``faces/grid_s1`` and ``speech/negatives``, to choose and measure by.
        share: of the full amounts of data and training, in (0, 1]; small values try the way out.
        threads: of drawing and training pictures.
    """

    assets: Path
    work: Path
    archives: Path | None = None
    bpy_python: Path | None = None
    data: Path | None = None
    share: float = 1.0
    threads: int = 1


def stages(plan: Plan) -> list[Stage]:
    """All stages in the order in which they must run."""
    work, assets, share = plan.work, ("--assets", str(plan.assets)), plan.share
    pairs, speech, model = str(work / "pairs"), str(work / "speech"), str(work / "model")
    checkpoint, audio_run = work / "picture.pt", work / "audio"
    people, beaming, held_out = (
        str(max(4, round(share * count))) for count in (_PEOPLE, _BEAMING_PEOPLE, _HELD_OUT_PEOPLE)
    )
    training = ("--pairs", pairs, "--checkpoint", str(checkpoint))
    steps = (str(max(10, round(share * _AUDIO_STEPS))), str(max(10, round(share * _AUDIO_STEPS / 2))))
    minutes = f"{max(0.2, share * _PICTURE_MINUTES):g}"
    picture = ("engine.studio.picture_train", "train", *training, "--threads", str(plan.threads))
    judges: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    if plan.data is not None:
        judges = ("--talkers", str(_OPENINGS), "--videos", str(plan.data / "faces"))
        measured = ("--data", str(plan.data))
    audio = ("engine.studio.audio_train", speech)
    settling = ("--rate", "1e-3", "--seed", "2", "--start", str(audio_run / "1" / "best.pt"))
    amount = ("--hours", f"{max(0.02, share * _SPEECH_HOURS):g}", "--held-out-minutes", f"{max(0.5, share * 8):g}")
    made = [
        Stage("mouth-inside", ("engine.studio.mouth_atlas", *assets, f"{model}/mouth_inside.npz"), "teeth and tongue"),
        Stage("pairs", ("engine.studio.pairs", *assets, "--out", pairs, "--people", people), "people to learn from"),
        Stage(
            "pairs-beaming",
            ("engine.studio.pairs", *assets, "--out", pairs, "--people", beaming, "--seed", "3", "--beaming", "0.6"),
            "people who smile with bare teeth",
        ),
        Stage(
            "pairs-held-out",
            ("engine.studio.pairs", *assets, "--out", pairs, "--people", held_out, "--seed", "900"),
            "people to measure on",
        ),
        Stage("train-picture", (*picture, "--critic", "--minutes", minutes), "picture network"),
        Stage("export-picture", ("engine.studio.picture_export", str(checkpoint), model), "its files"),
        Stage("measure-picture", ("engine.studio.picture_train", "measure", *training), "its figures"),
        Stage("speech", ("engine.studio.speech_data", speech, *amount), "timed speech"),
        Stage("train-audio", (*audio, str(audio_run / "1"), *judges, "--steps", steps[0]), "audio network"),
        Stage(
            "settle-audio",
            (*audio, str(audio_run / "2"), *judges, "--steps", steps[1], *settling),
            "audio network, at half the rate",
        ),
        Stage(
            "export-audio",
            ("engine.studio.audio_export", str(audio_run / "2" / "audio.safetensors"), model),
            "its files",
        ),
        Stage(
            "evaluate",
            ("engine", "evaluate", "--networks", "--model", model, *measured, "-o", str(work / "figures")),
            "figures of both networks",
        ),
    ]
    if plan.archives is not None:
        unpack = ("engine.studio.assets", "unpack", str(plan.archives), str(plan.assets))
        made.insert(0, Stage("unpack", unpack, "meshes, targets, textures"))
    if plan.bpy_python is not None:
        for name in _AVATARS:
            where = ("--work", str(work / "portraits" / name), "--out", str(work / "avatars"))
            interpreter = ("--bpy-python", str(plan.bpy_python), "--threads", str(plan.threads))
            words = ("engine.studio.portrait", "avatar", name, *assets, *where, *interpreter)
            made.append(Stage(f"avatar-{name}", words, f"avatar {name}"))
    return made


def is_done(stage: Stage, work: Path) -> bool:
    """Whether a stage has finished with the same command."""
    mark = _mark(stage, work)
    return mark.is_file() and mark.read_text("utf-8") == shlex.join(stage.words)


def carry_out(made: Sequence[Stage], work: Path) -> None:
    """Runs what is not done, one process after the other.

    Raises:
        BackendFailed: ``studio_stage_failed``; the same command goes on after the last finished stage.
    """
    (work / "model").mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(made, 1):
        head = f"[{number}/{len(made)}] {stage.name}"
        if is_done(stage, work):
            print(f"{head}: done before", flush=True)
            continue
        print(f"{head}: {stage.about}\n  {shlex.join(('python', '-m', *stage.words))}", flush=True)
        code = subprocess.run([sys.executable, "-m", *stage.words]).returncode
        if code:
            raise BackendFailed(
                "studio_stage_failed",
                f"Stage {stage.name} failed (exit code {code}, see above). The same command goes on from here.",
            )
        mark = _mark(stage, work)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(shlex.join(stage.words), "utf-8")


def _mark(stage: Stage, work: Path) -> Path:
    return work / "done" / stage.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, see the module's docstring.

    Raises:
        NotFound: there are neither assets nor archives.
        BackendFailed: a stage failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m engine studio all", description="Make data and networks from nothing; safe to stop and repeat."
    )
    parser.add_argument("--assets", type=Path, required=True, help="unpacked assets, or where to unpack them")
    parser.add_argument("--work", type=Path, required=True, help="directory for everything that is made")
    parser.add_argument("--archives", type=Path, help="directory with the four asset archives")
    parser.add_argument("--bpy-python", type=Path, help="interpreter that has bpy: draw the avatars too")
    parser.add_argument("--data", type=Path, help="folder with faces/grid, faces/grid_s1 and speech/negatives")
    parser.add_argument("--share", type=float, default=1.0, help="share of the full amounts, e.g. 0.01 to try the way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1:
        parser.error("--share must be above 0 and at most 1")
    plan = Plan(
        options.assets, options.work, options.archives, options.bpy_python, options.data, options.share, options.threads
    )
    made = stages(plan)
    if options.dry_run:
        for stage in made:
            done = "  # done" if is_done(stage, plan.work) else ""
            print(shlex.join(("python", "-m", *stage.words)) + done)
        return 0
    if plan.archives is None and not plan.assets.is_dir():
        raise NotFound(
            "assets_missing", f"There are no assets in {plan.assets}; name the archives too: --archives DIR (README)."
        )
    carry_out(made, plan.work)
    print(f"The model lies in {plan.work / 'model'}; to use it, copy its files to engine/lipsync/builtin.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
