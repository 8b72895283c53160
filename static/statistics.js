/**
 * What a connection's statistics say, in the few figures that people and plots are shown.
 *
 * Place in the flow: `talking-head.js` reads the browser's report through it.
 */

/**
 * The figures that matter, out of a statistics report. Missing ones are null.
 *
 * @param {RTCStatsReport} report
 * @param {RTCStatsReport} [before] an earlier one: buffers are averages since then, else since the connection was made
 * @returns {Record<string, number|string|null>} counters are totals since the connection was made
 */
export function summarise(report, before = new Map()) {
  const all = [...report.values()];
  const inbound = (kind) => all.find((s) => s.type === "inbound-rtp" && s.kind === kind) ?? {};
  const video = inbound("video");
  const audio = inbound("audio");
  const transport = all.find((s) => s.type === "transport") ?? {};
  const pair = report.get(transport.selectedCandidatePairId) ?? all.find((s) => s.type === "candidate-pair" && s.nominated) ?? {};
  const ms = (seconds) => (seconds === undefined ? null : Math.round(seconds * 1000));
  const buffer = (s) => {
    const { jitterBufferDelay: delay = 0, jitterBufferEmittedCount: count = 0 } = before.get(s.id) ?? {};
    return s.jitterBufferEmittedCount > count ? ms((s.jitterBufferDelay - delay) / (s.jitterBufferEmittedCount - count)) : null;
  };
  return {
    fps: video.framesPerSecond ?? null,
    frames_decoded: video.framesDecoded ?? null,
    frames_dropped: video.framesDropped ?? null,
    freezes: video.freezeCount ?? null,
    width: video.frameWidth ?? null,
    height: video.frameHeight ?? null,
    codec: report.get(video.codecId)?.mimeType?.replace("video/", "") ?? null,
    jitter_ms: ms(video.jitter),
    video_buffer_ms: buffer(video),
    audio_buffer_ms: buffer(audio),
    rtt_ms: ms(pair.currentRoundTripTime),
    packets_received: (video.packetsReceived ?? 0) + (audio.packetsReceived ?? 0),
    packets_lost: (video.packetsLost ?? 0) + (audio.packetsLost ?? 0),
    bytes_received: (video.bytesReceived ?? 0) + (audio.bytesReceived ?? 0),
    audio_energy: audio.totalAudioEnergy ?? null,
    audio_concealed: audio.concealedSamples ?? null,
    route: report.get(pair.localCandidateId)?.candidateType ?? null,
  };
}
