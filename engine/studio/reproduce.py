"""Everything from nothing: assets -> training data -> networks -> files of the product -> figures, stage by stage.

Place in the flow: ``python -m engine studio all`` -> one process per stage -> ``WORK/model`` and ``WORK/figures``.

Invariants:
    * a finished stage leaves a mark with its command and those of the stages it builds on, and is skipped as long as
      all of them stay the same;
    * a stage that was cut short is done again; drawing and picture training go on where they were;
    * the product's own files are never touched: everything new lies in ``WORK`` until it is copied.
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

_PEOPLE, _BEAMING_PEOPLE, _HELD_OUT_PEOPLE = 800, 260, 40
_PICTURE_MINUTES = 65.0
_SPEECH_HOURS, _HELD_OUT_MINUTES, _AUDIO_STEPS = 4.0, 8.0, 1200
_TRACKED_PEOPLE, _EXPERT_CLIPS, _EXPERT_STEPS = 40, 320, 1200
_COMPARED_PEOPLE = 130
_RECORDED_SHARE = 0.15
_OPENINGS = Path(talkers.__file__).with_name("talkers.json")
_AVATARS = ("maya", "leo", "amara", "kenji")


@dataclass(frozen=True)
class Stage:
    """One step.

    Attributes:
        name: of its mark.
        words: of the command after ``python -m``.
        about: what it does, for people.
        needs: names of the stages whose results it reads; they come earlier.
        how: words after those, which change how fast it is but not what it makes.
    """

    name: str
    words: tuple[str, ...]
    about: str
    needs: tuple[str, ...] = ()
    how: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """Everything after ``python -m``."""
        return (*self.words, *self.how)


@dataclass(frozen=True)
class Plan:
    """What is there and what is wanted.

    Attributes:
        assets: unpacked assets, or where they will be.
        work: directory for everything that is made.
        archives: the asset archives; None when ``assets`` is unpacked already.
        bpy_python: interpreter with bpy for avatars; None leaves them out.
        data: folder with ``faces/grid``, ``faces/grid_s1`` and ``speech/negatives``, to choose and measure by.
        recordings: list of ``speech_align``, recorded speech to learn from too; None for none.
        share: of the full amounts of data and training, in (0, 1]; small values try the way out.
        threads: of drawing and training pictures.
    """

    assets: Path
    work: Path
    archives: Path | None = None
    bpy_python: Path | None = None
    data: Path | None = None
    recordings: Path | None = None
    share: float = 1.0
    threads: int = 1


def stages(plan: Plan) -> list[Stage]:
    """All stages in the order in which they must run."""
    made = [*_picture_stages(plan), *_audio_stages(plan), *_expert_stages(plan)]
    words = ("engine", "evaluate", "--networks", "--model", str(plan.work / "model"), *_data(plan))
    made.append(
        Stage(
            "evaluate",
            (*words, "-o", str(plan.work / "figures")),
            "figures of both networks",
            ("mouth-inside", "export-picture", "export-audio"),
        )
    )
    if plan.archives is not None:
        words = _studio("unpack", str(plan.archives), str(plan.assets))
        made.insert(0, Stage("unpack", words, "meshes, targets, textures"))
    if plan.bpy_python is not None:
        for name in _AVATARS:
            where = ("--work", str(plan.work / "portraits" / name), "--out", str(plan.work / "avatars"))
            words = _studio("avatar", name, "--assets", str(plan.assets), *where)
            how = ("--bpy-python", str(plan.bpy_python), "--threads", str(plan.threads))
            made.append(Stage(f"avatar-{name}", words, f"avatar {name}", how=how))
    return made


def _picture_stages(plan: Plan) -> list[Stage]:
    assets, model = ("--assets", str(plan.assets)), str(plan.work / "model")
    pairs, checkpoint = str(plan.work / "pairs"), str(plan.work / "picture.pt")
    draw = _studio("pairs", *assets, "--out", pairs)
    training = ("--pairs", pairs, "--checkpoint", checkpoint)
    minutes = f"{max(0.2, plan.share * _PICTURE_MINUTES):g}"
    return [
        Stage("mouth-inside", _studio("mouth-inside", *assets, f"{model}/mouth_inside.npz"), "teeth and tongue"),
        Stage("pairs", (*draw, "--people", _part(plan, _PEOPLE, 4)), "people to learn from"),
        Stage(
            "pairs-beaming",
            (*draw, "--people", _part(plan, _BEAMING_PEOPLE, 4), "--seed", "3", "--beaming", "0.6"),
            "people who smile with bare teeth",
        ),
        Stage(
            "pairs-held-out",
            (*draw, "--people", _part(plan, _HELD_OUT_PEOPLE, 4), "--seed", "900"),
            "people to measure on",
        ),
        Stage(
            "train-picture",
            _studio("train-picture", *training, "--critic", "--minutes", minutes),
            "picture network",
            ("pairs", "pairs-beaming"),
            ("--threads", str(plan.threads)),
        ),
        Stage("export-picture", _studio("export-picture", checkpoint, model), "its files", ("train-picture",)),
        Stage(
            "measure-picture",
            _studio("measure-picture", *training),
            "its figures",
            ("train-picture", "pairs-held-out"),
            ("--threads", str(plan.threads)),
        ),
    ]


def _audio_stages(plan: Plan) -> list[Stage]:
    speech, first, second = str(plan.work / "speech"), plan.work / "audio" / "1", plan.work / "audio" / "2"
    hours = f"{max(0.02, plan.share * _SPEECH_HOURS):g}"
    minutes = f"{max(0.5, plan.share * _HELD_OUT_MINUTES):g}"
    judges: tuple[str, ...] = ()
    if plan.data is not None:
        judges = ("--talkers", str(_OPENINGS), "--videos", str(plan.data / "faces"))
    made = [Stage("speech", _studio("speech", speech, "--hours", hours, "--held-out-minutes", minutes), "timed speech")]
    heard: tuple[str, ...] = ("speech",)
    sources: tuple[str, ...] = ()
    if plan.recordings is not None:
        shard = f"{speech}/recorded_train.npz"
        made.append(Stage("align", _studio("align-speech", str(plan.recordings), shard), "recorded speech"))
        heard = ("speech", "align")
        shares = f"train_*.npz={1 - _RECORDED_SHARE:g}", f"recorded_train.npz={_RECORDED_SHARE:g}"
        sources = ("--source", shares[0], "--source", shares[1])
    settle = ("--rate", "4e-4", "--silent", "0.25", "--seed", "2", "--start", str(first / "best.pt"))
    mean = plan.work / "audio" / "mean.safetensors"
    parts = f"{second / 'audio.safetensors'}=0.75", f"{first / 'audio.safetensors'}=0.25"
    return [
        *made,
        Stage(
            "train-audio",
            _studio(
                "train-audio", speech, str(first), *judges, *sources, "--steps", _part(plan, _AUDIO_STEPS, 10)
            ),
            "audio network",
            heard,
        ),
        Stage(
            "settle-audio",
            _studio(
                "train-audio", speech, str(second), *judges, *sources, "--steps", _part(plan, _AUDIO_STEPS / 2, 10),
                *settle,
            ),
            "audio network, slower and with more that is no speech",
            (*heard, "train-audio"),
        ),
        Stage("mean-audio", _studio("mean-audio", str(mean), *parts), "mean of both", ("train-audio", "settle-audio")),
        Stage(
            "export-audio",
            _studio("export-audio", str(mean), str(plan.work / "model")),
            "its files",
            ("mean-audio",),
        ),
    ]  # fmt: skip


def _expert_stages(plan: Plan) -> list[Stage]:
    """What measures faces: the lip-sync expert of ``evaluate``, lip map and likeness of ``finetune``."""
    lips = str(plan.work / "lips.npz")
    faces = ("--faces", str(plan.data / "faces")) if plan.data is not None else ()
    amount = ("--clips", _part(plan, _EXPERT_CLIPS, 40), "--steps", _part(plan, _EXPERT_STEPS, 20))
    people = ("--people", _part(plan, _TRACKED_PEOPLE, 6))
    return [
        Stage("lips", _studio("sync-lips", "--assets", str(plan.assets), *people, lips), "known mouths, tracked"),
        Stage(
            "train-sync",
            _studio("train-sync", str(plan.work / "speech"), lips, str(plan.work / "expert"), *amount, *faces),
            "lip-sync expert",
            ("speech", "lips"),
        ),
        Stage(
            "lip-map",
            _studio("lip-map", lips, "--out", str(plan.work / "expert" / "lip_map.npz")),
            "map from measured lips to mouths",
            ("lips",),
        ),
        Stage(
            "likeness",
            _studio(
                "likeness", "--assets", str(plan.assets), "--people", _part(plan, _COMPARED_PEOPLE, 30),
                "--out", str(plan.work / "expert" / "likeness.npz"),
            ),
            "what tells people apart",
        ),
    ]  # fmt: skip


def _studio(command: str, *words: str) -> tuple[str, ...]:
    return ("engine", "studio", command, *words)


def _part(plan: Plan, amount: float, least: int) -> str:
    return str(max(least, round(plan.share * amount)))


def _data(plan: Plan) -> tuple[str, ...]:
    return () if plan.data is None else ("--data", str(plan.data))


def marks(made: Sequence[Stage]) -> dict[str, str]:
    """What each stage leaves behind when it is done: its command, after those of all stages it builds on."""
    lines: dict[str, dict[str, None]] = {}
    for stage in made:
        own: dict[str, None] = {}
        for name in stage.needs:
            own |= lines[name]
        lines[stage.name] = own | {shlex.join(stage.words): None}
    return {name: "\n".join(own) for name, own in lines.items()}


def is_done(name: str, mark: str, work: Path) -> bool:
    """Whether a stage has finished with the same commands.

    Args:
        name: of the stage.
        mark: of ``marks``.
        work: directory of the plan.
    """
    path = _mark(name, work)
    return path.is_file() and path.read_text("utf-8") == mark


def carry_out(made: Sequence[Stage], work: Path) -> None:
    """Runs what is not done, one process after the other.

    Raises:
        BackendFailed: ``studio_stage_failed``; the same command goes on after the last finished stage.
        KeyboardInterrupt: stopped; likewise.
    """
    for folder in ("model", "expert"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    wanted = marks(made)
    for number, stage in enumerate(made, 1):
        head = f"[{number}/{len(made)}] {stage.name}"
        if is_done(stage.name, wanted[stage.name], work):
            print(f"{head}: done before", flush=True)
            continue
        print(f"{head}: {stage.about}\n  {shlex.join(('python', '-m', *stage.command))}", flush=True)
        path = _mark(stage.name, work)
        # From here on its files are half old, half new.
        path.unlink(missing_ok=True)
        try:
            code = subprocess.run([sys.executable, "-m", *stage.command]).returncode
        except KeyboardInterrupt:
            print(f"\nStopped in stage {stage.name}. The same command goes on from here.", flush=True)
            raise
        if code:
            raise BackendFailed(
                "studio_stage_failed",
                f"Stage {stage.name} failed (exit code {code}, see above). The same command goes on from here.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[stage.name], "utf-8")


def _mark(name: str, work: Path) -> Path:
    return work / "done" / name


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
    parser.add_argument("--recordings", type=Path, help="recorded speech to learn from too: list for align-speech")
    parser.add_argument("--share", type=float, default=1.0, help="share of the full amounts, e.g. 0.01 to try the way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1:
        parser.error("--share must be above 0 and at most 1")
    plan = Plan(
        options.assets, options.work, options.archives, options.bpy_python, options.data, options.recordings,
        options.share, options.threads,
    )  # fmt: skip
    made = stages(plan)
    if options.dry_run:
        wanted = marks(made)
        for stage in made:
            done = "  # done" if is_done(stage.name, wanted[stage.name], plan.work) else ""
            print(shlex.join(("python", "-m", *stage.command)) + done)
        return 0
    if plan.archives is None and not plan.assets.is_dir():
        raise NotFound(
            "assets_missing", f"There are no assets in {plan.assets}; name the archives too: --archives DIR (README)."
        )
    carry_out(made, plan.work)
    print(
        f"The model lies in {plan.work / 'model'}; to use it, copy its files to engine/lipsync/builtin.\n"
        f"The expert lies in {plan.work / 'expert'}: sync_* go to engine/evaluate, the others to engine/studio."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
