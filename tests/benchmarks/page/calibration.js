/**
 * A sender inside the browser whose picture and sound are together by construction: the zero mark of the skew measure.
 *
 * Place in the flow: pattern.js -> (RTCPeerConnection -> RTCPeerConnection ->) video element, where the same Ear and Eye
 * listen and look as they do at a real session.
 */

/** Shows flashes and beeps, sent to itself or straight from the generator, until it is stopped. */
export class Calibration {
  #worker = new Worker(new URL("pattern.js", import.meta.url));
  #connections = [];

  /** @param {HTMLVideoElement} video where picture and sound are shown */
  constructor(video) {
    this.video = video;
  }

  /**
   * @param {boolean} throughWebrtc false: the generated tracks are shown as they are
   * @returns {Promise<MediaStream>} what is shown
   */
  async start(throughWebrtc) {
    const picture = new MediaStreamTrackGenerator({ kind: "video" });
    const sound = new MediaStreamTrackGenerator({ kind: "audio" });
    const streams = { picture: picture.writable, sound: sound.writable };
    this.#worker.postMessage(streams, Object.values(streams));
    // One stream, as the server announces it: the browser synchronises only tracks that belong together.
    let stream = new MediaStream([sound, picture]);
    if (throughWebrtc) stream = await this.#send(stream);
    this.video.srcObject = stream;
    await this.video.play();
    return stream;
  }

  stop() {
    this.#worker.terminate();
    this.#connections.forEach((connection) => connection.close());
  }

  async #send(stream) {
    const sender = new RTCPeerConnection();
    const receiver = new RTCPeerConnection();
    this.#connections = [sender, receiver];
    sender.onicecandidate = ({ candidate }) => receiver.addIceCandidate(candidate);
    receiver.onicecandidate = ({ candidate }) => sender.addIceCandidate(candidate);
    const received = new MediaStream();
    receiver.ontrack = ({ track }) => received.addTrack(track);
    for (const track of stream.getTracks()) sender.addTrack(track, stream);
    preferH264(sender.getTransceivers()[1]);
    await sender.setLocalDescription();
    await receiver.setRemoteDescription(sender.localDescription);
    await receiver.setLocalDescription();
    await sender.setRemoteDescription(receiver.localDescription);
    return received;
  }
}

function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities("video").codecs;
  const h264 = codecs.filter((codec) => codec.mimeType === "video/H264");
  if (h264.length) transceiver.setCodecPreferences([...h264, ...codecs.filter((codec) => !h264.includes(codec))]);
}
