"""The load generator's arithmetic, held to streams whose answer is known."""

from __future__ import annotations

import os
import socket
import time

import av
import numpy as np
import pytest
from aiortc.codecs import h264
from aiortc.rtp import RtpPacket

from tests.benchmarks import strip
from tests.benchmarks.load import figures, witness
from tests.benchmarks.load.client import Stream
from tests.benchmarks.load.figures import Packets
from tests.benchmarks.load.plots import Panel, sheet
from tests.benchmarks.load.profile import costs
from tests.benchmarks.load.server import _family, _memory_mb, added_up
from tests.benchmarks.load.soak import verdict
from tests.benchmarks.load.wire import Reader, prepare

FRAME_NS = 40_000_000
TICKS = 3600


def stream(
    pictures: int, packets: int = 3, first_sequence: int = 65_500, first_stamp: int = 4_294_960_000
) -> Packets:
    """Pictures of so many packets, one every 40 ms, whose counters run over on the way."""
    picture = np.repeat(np.arange(pictures), packets)
    number = np.arange(pictures * packets)
    return Packets(
        ((first_sequence + number) % 65_536).astype(np.uint16),
        ((first_stamp + picture * TICKS) % 2**32).astype(np.uint32),
        number % packets == packets - 1,
        picture * FRAME_NS + (number % packets) * 100_000,
    )


def pick(packets: Packets, order: np.ndarray) -> Packets:
    return Packets(packets.sequence[order], packets.timestamp[order], packets.marker[order], packets.times_ns[order])


def test_counters_that_run_over_go_on():
    assert figures.unwrap(np.array([65_534, 65_535, 0, 2, 1], np.uint16), 16).tolist() == [
        65_534, 65_535, 65_536, 65_538, 65_537,
    ]  # fmt: skip


def test_every_picture_of_a_whole_stream_counts_once_at_its_last_packet():
    seen = figures.units(stream(50))

    assert len(seen) == 50 and seen.lost == 0 and seen.reordered == 0
    assert np.diff(seen.media).tolist() == [TICKS] * 49
    assert seen.times_ns[3] == 3 * FRAME_NS + 200_000


@pytest.mark.parametrize("missing", [30, 31])
def test_a_picture_that_lacks_a_packet_does_not_count(missing: int):
    packets = stream(50)
    seen = figures.units(pick(packets, np.delete(np.arange(150), missing)))

    assert (len(seen), seen.lost) == (49, 1)
    assert seen.media[10] - seen.media[9] == 2 * TICKS


def test_a_missing_last_packet_makes_the_next_picture_doubtful():
    # The missing one may have been its first.
    seen = figures.units(pick(stream(50), np.delete(np.arange(150), 32)))

    assert (len(seen), seen.lost) == (48, 1)


def test_packets_that_overtake_each_other_make_no_hole():
    order = np.arange(150)
    order[[40, 41]] = order[[41, 40]]
    seen = figures.units(pick(stream(50), order))

    assert (len(seen), seen.lost, seen.reordered) == (50, 0, 1)


def test_a_packet_that_comes_twice_counts_once():
    seen = figures.units(pick(stream(50), np.sort(np.append(np.arange(150), 77))))

    assert (len(seen), seen.lost) == (50, 0)


def test_lateness_is_measured_against_the_earliest_picture():
    packets = stream(50)
    packets.times_ns[60:63] += 25_000_000
    seen = figures.units(packets)

    late = figures.late_ms(seen, figures.between(seen, 0, 10**12), figures.VIDEO_RATE)

    assert late[20] == pytest.approx(25, abs=0.01) and np.delete(late, 20).max() < 0.01


def test_age_is_told_by_the_sender_report_across_the_end_of_the_counter():
    seen = figures.units(stream(50))
    to_unix_s = time.time() - time.monotonic()
    # Picture 10 was due 7 ms before its last packet came.
    due_s = (10 * FRAME_NS + 200_000) / 1e9 - 0.007 + to_unix_s
    report = (due_s, (4_294_960_000 + 10 * TICKS) % 2**32)

    assert figures.age_ms(seen, report, figures.VIDEO_RATE) == pytest.approx(7, abs=1)
    assert figures.age_ms(seen, None, figures.VIDEO_RATE) is None


def test_a_steady_stream_never_freezes_and_a_pause_does_once():
    times = np.arange(100) * FRAME_NS
    assert figures.freezes(times, 0, 100 * FRAME_NS) == (0, 40.0)

    # 40 ms and 150 ms more: just a freeze; a little less is none.
    paused = np.where(np.arange(100) >= 50, times + 151_000_000, times)
    assert figures.freezes(paused, 0, int(paused[-1]) + FRAME_NS) == (1, 191.0)
    shorter = np.where(np.arange(100) >= 50, times + 148_000_000, times)
    assert figures.freezes(shorter, 0, int(shorter[-1]) + FRAME_NS)[0] == 0


def test_a_stream_that_ends_or_never_begins_is_frozen():
    times = np.arange(50) * FRAME_NS

    assert figures.freezes(times, 0, 100 * FRAME_NS)[0] == 1
    assert figures.freezes(np.zeros(0, np.int64), 0, 100 * FRAME_NS) == (1, 4000.0)


def test_a_receiver_report_counts_what_was_lost_since_the_last_one():
    known = Stream(7, "video", 65_530, 65_530, received=1)
    known.count(4, 8)  # 65 531 … 65 535, 0 … 4 are ten packets; two are missing.

    block = known.block()

    assert int.from_bytes(block[:4], "big") == 7
    assert block[4] == (2 << 8) // 11 and int.from_bytes(block[5:8], "big") == 2
    assert int.from_bytes(block[8:12], "big") == 65_536 + 4
    known.count(5, 1)
    assert known.block()[4] == 0


@pytest.fixture
def ends():
    receivers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for receiver in receivers:
        receiver.bind(("127.0.0.1", 0))
        prepare(receiver)
    yield receivers, sender
    for handle in (*receivers, sender):
        handle.close()


def test_datagrams_of_many_sockets_are_read_at_once(ends):
    receivers, sender = ends
    handles = [(number, receiver.fileno()) for number, receiver in enumerate(receivers)]
    for number, content in ((0, b"one"), (2, b"two more"), (2, b"three")):
        sender.sendto(content, receivers[number].getsockname())
    reader = Reader(slots=16)

    came = reader.drain(handles)

    read = [(int(owner), came.data[row, : came.lengths[row]].tobytes()) for row, owner in enumerate(came.owners)]
    assert read == [(0, b"one"), (2, b"two more"), (2, b"three")]
    assert came.sender(0) == ("127.0.0.1", sender.getsockname()[1])
    assert len(reader.drain(handles)) == 0


def test_a_datagram_has_the_time_at_which_it_came_not_that_of_its_reading(ends):
    receivers, sender = ends
    # The kernel begins to note times a moment after the first socket asks for it; and a busy machine may be late.
    for _attempt in range(20):
        sent_ns = time.monotonic_ns()
        sender.sendto(b"early", receivers[0].getsockname())
        time.sleep(0.05)
        came = Reader(slots=4).drain([(0, receivers[0].fileno())])
        if 0 <= came.times_ns[0] - sent_ns < 30_000_000:
            return
    raise AssertionError(f"read {(came.times_ns[0] - sent_ns) / 1e6:.1f} ms after it was sent, and never earlier")


def encoded(pictures: int) -> list[tuple[int, bytes]]:
    """RTP packets of stamped pictures, as a witness has them."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = 256
    encoder.pix_fmt = "yuv420p"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    grey = np.full((256, 256, 3), 90, np.uint8)
    packets: list[tuple[int, bytes]] = []
    for number in range(pictures):
        frame = av.VideoFrame.from_ndarray(strip.stamp(grey, number), format="bgr24")
        for packet in encoder.encode(frame):
            payloads = list(h264.H264Encoder._packetize(h264.H264Encoder._split_bitstream(bytes(packet))))
            for at, payload in enumerate(payloads):
                rtp = RtpPacket(payload_type=99, sequence_number=len(packets) & 0xFFFF, timestamp=number * TICKS)
                rtp.payload, rtp.marker = payload, int(at == len(payloads) - 1)
                packets.append((number * FRAME_NS, rtp.serialize()))
    return packets


def test_a_witness_reads_the_numbers_of_the_pictures_it_decodes():
    seen = witness.decode(encoded(12))

    assert strip.read_numbers(seen.grids).tolist() == list(range(12))
    assert (seen.corrupt, seen.first_key) == (0, 0)
    assert witness.decoded_fps(seen, 0, 10 * FRAME_NS) == 25.0
    assert witness.decoded_fps(seen, -(10**9), 10 * FRAME_NS) == 25.0


def test_a_witness_begins_at_a_key_frame():
    packets = encoded(12)
    first = next(at for at, (_, data) in enumerate(packets) if RtpPacket.parse(data).timestamp)

    seen = witness.decode(packets[first:])

    assert (len(seen.times_ns), seen.first_key) == (0, 11)


def test_costs_belong_to_the_innermost_function_of_ours():
    found = costs([
        "thread (7): MainThread;main (server/__main__.py:60);send (server/rtp.py:9);x (lib/y.py:3) 6",
        "thread (7): MainThread;main (server/__main__.py:60);select (selectors.py:4) 50",
        "thread (8): video-encoder_0;_worker (thread.py:3);encode (server/encoder.py:5);to_ndarray (av/frame.py:1) 3",
        "thread (9): video-encoder_1;_worker (thread.py:3);encode (server/encoder.py:7) 1",
    ])  # fmt: skip

    assert found["places"] == {"server/rtp.py": 60.0, "server/encoder.py": 40.0}
    assert found["functions"]["encode (server/encoder.py)"] == 40.0
    assert found["threads"] == {"MainThread": 60.0, "video-encoder": 40.0}


def test_counters_of_several_workers_are_added_up():
    told = {
        'visavis_frames_total{worker="a",kind="held"}': 2.0,
        'visavis_frames_total{worker="b",kind="held"}': 3.0,
        'visavis_tasks{worker="a"}': 4.0,
        "visavis_peers": 1.0,
    }

    assert added_up(told) == {'visavis_frames_total{kind="held"}': 5.0, "visavis_tasks": 4.0, "visavis_peers": 1.0}


def test_growth_is_told_from_noise():
    steady = [
        {"sessions": n, "own_mb": 150 + 9 * (n > 450) + 30 * (n == 700), "threads": 20, "tasks": 4, "files": 16}
        for n in range(0, 1001, 25)
    ]
    swelling = [{**sample, "own_mb": 150 + sample["sessions"] / 100} for sample in steady]
    leaking = [{**sample, "files": 16 + sample["sessions"] // 50} for sample in steady]

    assert verdict(steady)["flat"] is True
    assert (verdict(steady)["rise_mb"], verdict(steady)["growth_per_1000"]["own_mb"]) == (9, 0)
    assert verdict(leaking)["flat"] is False
    assert verdict(swelling)["flat"] is False
    assert verdict(swelling)["growth_per_1000"]["own_mb"] == pytest.approx(10, abs=0.1)
    assert verdict(leaking)["growth_per_1000"]["files"] == pytest.approx(20, abs=1)


def test_plots_are_drawn_even_of_nothing():
    drawn = sheet([[Panel("a", {"us": [(1, 2), (4, 90)]}, 24.5, 40), Panel("b", {})], [Panel("c", {"us": [(0, 0)]})]])

    assert drawn.shape == (480, 900, 3) and len(np.unique(drawn)) > 3


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="counts processes by /proc")
def test_a_process_is_counted_with_its_children():
    assert next(iter(_family(os.getpid()))) == os.getpid()
    memory = _memory_mb(os.getpid())
    assert 1 < memory["Pss_Anon"] <= memory["Pss"] <= memory["Rss"]
