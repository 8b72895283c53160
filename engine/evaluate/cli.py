"""``python -m engine evaluate``: measures avatars that talk, or any talking video, as a table, JSON and plots.

Place in the flow: command line -> ``video_report`` (a video), ``network_figures`` (--networks) or ``avatar_report``
(everything else) -> printed table, ``face.json``, PNG files.

Invariant: what is not known is ``null`` in JSON and ``-`` in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engine.avatar.bundle import avatar_folder, list_avatars, load_avatar
from engine.config_load import load_config
from engine.errors import AvatarInvalid, NotFound
from engine.evaluate.hearing import BUILTIN
from engine.evaluate.network_figures import measure, network_costs, weights_mb
from engine.evaluate.plots import bar_plot, curve_plot, track_plot

_COLUMNS = (
    "sync_corr_synthetic", "sync_corr_real", "lag_synthetic", "lag_real", "bilabial_closure", "silence_shut",
    "pause_shut", "rest_psnr_db", "jitter", "expert_confidence", "expert_offset", "niqe", "niqe_idle", "fid_to_idle",
    "ms_per_frame_1core",
)  # fmt: skip
_GOALS = {"sync_corr_synthetic": 0.75, "sync_corr_real": 0.55, "bilabial_closure": 0.9, "silence_shut": 0.98}
_WORST_OF = {"rest_psnr_db": min, "jitter": max}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``evaluate``."""
    parser.add_argument("video", type=Path, nargs="?", metavar="VIDEO", help="measure this video; without it, avatars")
    parser.add_argument("--truth", type=Path, metavar="VIDEO", help="the same speech as it should look")
    parser.add_argument("--syncnet", type=Path, metavar="FILE", help="official syncnet_v2.model, for LSE-C and LSE-D")
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="measure so much of VIDEO (default: 20)"
    )
    parser.add_argument("--avatars", type=Path, metavar="DIR", action="append", default=[], help="more avatars")
    parser.add_argument("--only", metavar="NAME", action="append", help="only avatars of these names")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with faces/grid and speech/negatives")
    parser.add_argument("--clips", type=int, default=5, metavar="N", help="sentences of held-out voices (default: 5)")
    parser.add_argument("--silences", type=int, default=10, metavar="N", help="sounds without speech (default: 10)")
    parser.add_argument("--networks", action="store_true", help="measure the networks alone, without any picture")
    parser.add_argument("--model", type=Path, default=BUILTIN, metavar="DIR", help="folder with audio.xml (--networks)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the JSON and the plots")


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes files.

    Raises:
        NotFound: no such model, avatar or file.
        InvalidInput: a video cannot be measured.
        BackendFailed: the face models are not installed.
    """
    cv2.setNumThreads(1)
    if args.video is not None:
        _run_video(args)
    elif args.networks:
        if not (args.model / "audio.xml").exists():
            raise NotFound("model_not_found", f"There is no audio.xml in {args.model}. Train and export one first.")
        report = measure(args.model, args.data, args.clips)
        _print_list(report)
        _write_json(args.output, "networks.json", report)
    else:
        _run_avatars(args)
    return 0


def _run_video(args: argparse.Namespace) -> None:
    from engine.evaluate.video_report import measure_video

    report = measure_video(args.video, args.truth, args.syncnet, args.seconds)
    _print_list(report.figures)
    for note in report.notes:
        print(f"  {note}")
    _write_json(args.output, "video.json", {**report.figures, "notes": report.notes})
    if args.output:
        true = np.zeros(0) if report.true_opening is None else np.nan_to_num(report.true_opening)
        _write_picture(args.output, "opening.png", track_plot([(args.video.name, np.nan_to_num(report.opening), true)]))
        if report.curve is not None:
            _write_picture(args.output, "offsets.png", curve_plot({args.video.name: report.curve}))


def _run_avatars(args: argparse.Namespace) -> None:
    from engine import registry
    from engine.evaluate.avatar_report import AvatarJudge, AvatarReport
    from engine.evaluate.trials import make_trials

    folders = _folders(args)
    trials = make_trials(args.clips, args.silences, args.data)
    judge = AvatarJudge(registry.create_lipsync("builtin", threads=1, precision="f32"), trials)
    reports: list[AvatarReport] = []
    _print_row("avatar", {name: name for name in _COLUMNS})
    for folder in folders:
        try:
            avatar = load_avatar(folder)
        except AvatarInvalid as error:
            print(f"{folder.name:<22}left out: {error.message}", file=sys.stderr, flush=True)
            continue
        reports.append(judge(avatar))
        _print_row(reports[-1].avatar, reports[-1].figures)
    if not reports:
        raise NotFound("avatar_not_found", "None of the avatars can be used; see above.")
    costs = network_costs(BUILTIN)
    summary = summary_of([report.figures for report in reports])
    summary["mflops"] = round(sum(value for name, value in costs.items() if name.endswith("mflops")), 1)
    summary["weights_mb"] = round(weights_mb(BUILTIN), 2)
    _print_row("all", summary)
    print(f"networks: {summary['mflops']} MFLOPs a frame, weights {summary['weights_mb']} MB in all forms")
    voices = voices_of([report.voices for report in reports])
    for voice, correlation in voices.items():
        print(f"  {voice:<40}{correlation:8.3f}")
    if summary["sync_corr_real"] is None:
        print("sync_corr_real, lag_frames of real talkers: not measured; --data DIR names the folder with faces/grid")
    rows = [{"name": report.avatar, **_rounded(report.figures)} for report in reports]
    _write_json(args.output, "face.json", {**_rounded(summary), "avatars": rows, "voices": _rounded(voices)})
    if args.output:
        shown = reports[0].sayings
        tracks = [(f"{reports[0].avatar}: {s.trial.kind} {s.trial.voice}", s.opening, s.trial.opening) for s in shown]
        _write_picture(args.output, "openings.png", track_plot(tracks))
        _write_picture(
            args.output, "offsets.png", curve_plot({r.avatar: r.curve for r in reports if r.curve is not None})
        )
        bars = [bar_plot(name, {r.avatar: r.figures[name] for r in reports}, _GOALS[name]) for name in _GOALS]
        _write_picture(args.output, "avatars.png", np.concatenate(bars))


def _folders(args: argparse.Namespace) -> list[Path]:
    """Avatar folders to measure, the shipped ones first.

    Raises:
        NotFound: ``avatar_not_found``.
    """
    config = load_config({})
    found = [
        avatar_folder(directory, name)
        for directory in (config.avatars_dir, *args.avatars)
        for name in list_avatars(directory)
        if not args.only or name in args.only
    ]
    if not found:
        raise NotFound("avatar_not_found", f"There is no such avatar in {config.avatars_dir} or --avatars.")
    return found


def summary_of(rows: list[Mapping[str, float | None]]) -> dict[str, float | None]:
    """One figure over all avatars: the mean, but the worst ``rest_psnr_db`` and ``jitter``.

    ``lag_frames`` is the mean lag with real talkers, or with synthetic voices where there are none.
    """
    summary: dict[str, float | None] = {}
    for name in _COLUMNS:
        known = [value for row in rows if (value := row.get(name)) is not None]
        whole = _WORST_OF.get(name, lambda values: float(np.mean(values)))
        summary[name] = whole(known) if known else None
    real = summary["lag_real"]
    summary["lag_frames"] = real if real is not None else summary["lag_synthetic"]
    return summary


def voices_of(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """Mean correlation over all avatars by voice."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _print_list(figures: Mapping[str, float | None]) -> None:
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {_shown(value)}")


def _print_row(title: str, values: Mapping[str, object]) -> None:
    cells = [str(value) if isinstance(value := values.get(name), str) else _shown(value) for name in _COLUMNS]
    widths = [max(9, len(name)) for name in _COLUMNS]
    print(
        f"{title:<22}" + "".join(f"{cell:>{width + 1}}" for cell, width in zip(cells, widths, strict=True)), flush=True
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.3f}" if isinstance(value, float) and not value.is_integer() else f"{value:,.0f}"  # type: ignore[str-format]


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(float(value), 4) for name, value in values.items()}


def _write_json(folder: Path | None, name: str, values: Mapping[str, object]) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def _write_picture(folder: Path, name: str, picture: np.ndarray) -> None:
    cv2.imwrite(str(folder / name), picture)
