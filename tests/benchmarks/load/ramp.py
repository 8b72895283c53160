"""Points of a ramp: so many viewers, watched for so long, and whether the floor held.

Place in the flow: scenario -> ``measure_point`` -> ``Point``; crowd and server are there already.

The floor is what nobody would complain about: 24.5 new pictures a second, no freeze, and 95 of 100 pictures within
40 ms of their time, for **every** viewer, not for their mean.

Invariants: a point is judged by its worst viewer; what the server did not have ready (a held mouth) is no new
picture, although its packets came in time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tests.benchmarks.load import figures, witness
from tests.benchmarks.load.crowd import Crowd
from tests.benchmarks.load.crowd_process import LEAD_S, Received
from tests.benchmarks.load.server import Cost, LoadedServer, difference

FLOOR_FPS = 24.5
FLOOR_LATE_MS = 40.0
FRAME_KINDS = ("idle", "speaking", "held", "dropped")
WITNESSES_OF_FEW = 4
WITNESS_EVERY = 25


@dataclass(frozen=True, slots=True)
class Watched:
    """What one viewer saw.

    Attributes:
        fps: new pictures a second, complete ones by the headers of their packets.
        freezes: Chromium's definition, at its receiver.
        longest_gap_ms: longest time without a new picture.
        late_ms_p50, late_ms_p95, late_ms_max: arrival after the time the picture's time stamp stands for, the
            earliest picture counting as in time.
        sound_late_ms_p95: likewise for sound.
        age_ms_p50: arrival after the time at which the server was to send it, by its sender reports.
        av_ms: picture later than sound by the same reckoning.
        lost, reordered: packets of pictures.
        kbps: pictures, headers included.
        decoded_fps, corrupt: by a decoder; None where nobody decoded.
        key_ms: from asking for a key frame to its arrival.
        ended: the server ended it.
    """

    fps: float
    freezes: int
    longest_gap_ms: float
    late_ms_p50: float
    late_ms_p95: float
    late_ms_max: float
    sound_late_ms_p95: float
    age_ms_p50: float | None
    av_ms: float | None
    lost: int
    reordered: int
    kbps: float
    decoded_fps: float | None
    corrupt: int | None
    key_ms: float | None
    ended: bool

    @property
    def holds(self) -> bool:
        """Whether this viewer has nothing to complain about."""
        fps = self.fps if self.decoded_fps is None else min(self.fps, self.decoded_fps)
        return fps >= FLOOR_FPS and self.freezes == 0 and self.late_ms_p95 <= FLOOR_LATE_MS and not self.ended


def watched(received: Received, start_ns: int, end_ns: int) -> Watched:
    """Figures of one viewer over a time."""
    seconds = (end_ns - start_ns) / 1e9
    whole, heard = figures.units(received.video), figures.units(_each(received.audio))
    video, sound = figures.between(whole, start_ns, end_ns), figures.between(heard, start_ns, end_ns)
    frozen, longest_ms = figures.freezes(video.times_ns, start_ns, end_ns)
    late = figures.late_ms(whole, video, figures.VIDEO_RATE)
    age_ms = figures.age_ms(video, received.due.get("video"), figures.VIDEO_RATE)
    sound_age_ms = figures.age_ms(sound, received.due.get("audio"), figures.AUDIO_RATE)
    seen = witness.decode(received.clear["video"]) if received.clear["video"] else None
    return Watched(
        fps=round(len(video) / seconds, 2),
        freezes=frozen,
        longest_gap_ms=round(longest_ms, 1),
        late_ms_p50=_percentile(late, 50),
        late_ms_p95=_percentile(late, 95),
        late_ms_max=_percentile(late, 100),
        sound_late_ms_p95=_percentile(figures.late_ms(heard, sound, figures.AUDIO_RATE), 95),
        age_ms_p50=age_ms,
        av_ms=None if age_ms is None or sound_age_ms is None else round(age_ms - sound_age_ms, 1),
        lost=whole.lost,
        reordered=whole.reordered,
        kbps=round(received.video_bytes * 8 / 1000 / (seconds + 1), 1),
        decoded_fps=None if seen is None else witness.decoded_fps(seen, start_ns, end_ns),
        corrupt=None if seen is None else seen.corrupt,
        key_ms=None if seen is None else _key_ms(seen, start_ns),
        ended=received.lost,
    )


def _key_ms(seen: witness.Decoded, start_ns: int) -> float | None:
    return round(float(seen.times_ns[0] - start_ns) / 1e6 + 1000 * LEAD_S, 1) if len(seen.times_ns) else None


def _each(packets: figures.Packets) -> figures.Packets:
    """Sound: every packet is a unit of its own, whatever its marker says."""
    return figures.Packets(packets.sequence, packets.timestamp, np.ones(len(packets), bool), packets.times_ns)


def _percentile(values: np.ndarray, q: float) -> float:
    # Nothing came: later than anything.
    return round(float(np.percentile(values, q)), 1) if len(values) else 1e9


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a ramp.

    Attributes:
        viewers: how many there were; ``ended`` of them the server did not keep.
        seconds: for how long they were watched.
        holds: whether every viewer was content, and mouths were new often enough.
        fps: of the worst viewer; ``fps_mean`` of all.
        fresh_fps: pictures a second whose mouth was not held for want of a new one.
        decoded_fps: the worst of those that decode.
        freezes, lost: of all viewers; ``longest_gap_ms`` and everything late: of the worst one.
        late_ms_p95_median: of the middle viewer.
        age_ms_p50, av_ms: of the viewer with the largest.
        cpu_percent: the server's, of one core; ``cpu_percent_each`` by viewer.
        crowd_percent: the load generator's; ``others_percent`` what else the machine did meanwhile.
        pss_mb: the server's memory, all its processes.
        threads, files, processes: the server's.
        frames: what the server's sessions did in that time, by kind; ``dropped`` pictures of their encoders.
        viewers_seen: each viewer's figures.
    """

    viewers: int
    ended: int
    seconds: float
    holds: bool
    fps: float
    fps_mean: float
    fresh_fps: float
    decoded_fps: float | None
    freezes: int
    longest_gap_ms: float
    late_ms_p95: float
    late_ms_p95_median: float
    late_ms_max: float
    sound_late_ms_p95: float
    age_ms_p50: float | None
    av_ms: float | None
    lost: int
    kbps: float
    cpu_percent: float
    cpu_percent_each: float
    crowd_percent: float
    others_percent: float
    pss_mb: float
    threads: int
    files: int
    processes: int
    connect_ms_p95: float
    frames: dict[str, float]
    dropped: float
    viewers_seen: list[Watched]

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def witnesses(count: int) -> list[int]:
    """Which of so many viewers decode: all of a few, every 25th of many."""
    return list(range(count)) if count <= WITNESSES_OF_FEW else list(range(0, count, WITNESS_EVERY))


def measure_point(server: LoadedServer, crowd: Crowd, seconds: float) -> Point:
    """Watches everybody for a time.

    Raises:
        CrowdFailed: viewers could not be asked.
    """
    counted = server.metrics()
    start = _Moment(server.cost(), crowd.cpu_s())
    watch = crowd.start(seconds, witnesses(len(crowd)))
    # Memory and processor time over the time itself: handing over what was received comes after it.
    time.sleep(seconds + 0.9)
    cost = server.cost()
    start_ns, end_ns, used_s, received = watch()
    counted_after = server.metrics()
    seen = [watched(one, start_ns, end_ns) for one in received.values()]
    frames = {
        kind: difference(counted, counted_after, f'visavis_frames_total{{kind="{kind}"}}') for kind in FRAME_KINDS
    }
    dropped = difference(counted, counted_after, "visavis_pictures_dropped_total")
    connect_ms = np.array([1000 * one.connect_s for one in received.values()])
    return _point(seen, frames, dropped, seconds, start, _Moment(cost, used_s), _percentile(connect_ms, 95))


@dataclass(frozen=True, slots=True)
class _Moment:
    cost: Cost
    crowd_s: float


def _point(
    seen: list[Watched], frames: dict[str, float], dropped: float, seconds: float, before: _Moment, after: _Moment,
    connect_ms: float,
) -> Point:  # fmt: skip
    per_s = 100 / (after.cost.at_s - before.cost.at_s)
    cpu = per_s * (after.cost.cpu_s - before.cost.cpu_s)
    crowd = per_s * (after.crowd_s - before.crowd_s)
    machine = per_s * (after.cost.machine_busy_s - before.cost.machine_busy_s)
    fps, made = min(one.fps for one in seen), sum(frames.values())
    fresh = fps * (1 - frames["held"] / made) if made else fps
    return Point(
        viewers=len(seen),
        ended=sum(one.ended for one in seen),
        seconds=seconds,
        holds=all(one.holds for one in seen) and fresh >= FLOOR_FPS,
        fps=fps,
        fps_mean=round(float(np.mean([one.fps for one in seen])), 2),
        fresh_fps=round(fresh, 2),
        decoded_fps=min((one.decoded_fps for one in seen if one.decoded_fps is not None), default=None),
        freezes=sum(one.freezes for one in seen),
        longest_gap_ms=max(one.longest_gap_ms for one in seen),
        late_ms_p95=max(one.late_ms_p95 for one in seen),
        late_ms_p95_median=round(float(np.median([one.late_ms_p95 for one in seen])), 1),
        late_ms_max=max(one.late_ms_max for one in seen),
        sound_late_ms_p95=max(one.sound_late_ms_p95 for one in seen),
        age_ms_p50=_largest([one.age_ms_p50 for one in seen]),
        av_ms=_largest([one.av_ms for one in seen]),
        lost=sum(one.lost for one in seen),
        kbps=round(float(np.mean([one.kbps for one in seen])), 1),
        cpu_percent=round(cpu, 1),
        cpu_percent_each=round(cpu / len(seen), 2),
        crowd_percent=round(crowd, 1),
        others_percent=round(max(0.0, machine - cpu - crowd), 1),
        pss_mb=after.cost.pss_mb,
        threads=after.cost.threads,
        files=after.cost.files,
        processes=after.cost.processes,
        connect_ms_p95=connect_ms,
        frames=frames,
        dropped=dropped,
        viewers_seen=seen,
    )


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), key=abs, default=None)
