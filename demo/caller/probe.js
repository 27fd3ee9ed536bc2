// Runs in every document before its own scripts. It keeps the peer connections
// that are made, to tell what comes from others from what is one's own, and
// measures what the elements of the page really show and play.
(() => {
  const Native = window.RTCPeerConnection;
  if (!Native || window.passerelleProbe) return;
  const peers = new Set();
  window.RTCPeerConnection = class RTCPeerConnection extends Native {
    constructor(...args) {
      super(...args);
      peers.add(this);
    }
  };

  // Receivers whose frames go through the page before they are decoded, which is
  // how end-to-end encryption is undone.
  const sealed = new WeakSet();
  const create = RTCRtpReceiver.prototype.createEncodedStreams;
  RTCRtpReceiver.prototype.createEncodedStreams = function createEncodedStreams(...args) {
    const streams = create.apply(this, args);
    sealed.add(this);
    return streams;
  };

  const sampleWidth = 64;
  const sampleHeight = 36;
  // A new image has this share of pixels whose colour moved this far, of 255:
  // what a codec does to a picture that stands still is less.
  const movedShare = 0.005;
  const movedFar = 40;
  const silence = -60; // dB, of a spectrum's peak
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: sampleWidth, height: sampleHeight });
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  const eyes = new WeakMap(); // video element -> { last, images }
  const ears = new Map(); // audio track id -> AnalyserNode
  let sound = null;
  let seen = { frames: 0, images: 0, width: 0, height: 0 };

  // remoteTracks are those that come from others: by their id, whether they were
  // sealed.
  function remoteTracks() {
    const tracks = new Map();
    for (const peer of peers) {
      if (peer.connectionState === "closed") peers.delete(peer);
      else for (const r of peer.getReceivers()) tracks.set(r.track.id, sealed.has(r) || Boolean(r.transform));
    }
    return tracks;
  }

  // playing lists the tracks of others that elements of the page play.
  function playing(selector, kind, remote) {
    return [...document.querySelectorAll(selector)].flatMap((element) =>
      element.srcObject instanceof MediaStream && !element.paused
        ? element.srcObject.getTracks()
          .filter((t) => t.kind === kind && t.readyState === "live" && !t.muted && remote.has(t.id))
          .map((track) => ({ element, track }))
        : []);
  }

  // moved is the share of pixels that differ, red, green or blue.
  function moved(data, last) {
    let pixels = 0;
    for (let i = 0; i < data.length; i += 4) {
      if ([0, 1, 2].some((c) => Math.abs(data[i + c] - last[i + c]) > movedFar)) pixels++;
    }
    return 4 * pixels / data.length;
  }

  function look(element) {
    if (element.videoWidth === 0) return;
    paint.drawImage(element, 0, 0, sampleWidth, sampleHeight);
    const { data } = paint.getImageData(0, 0, sampleWidth, sampleHeight);
    const eye = eyes.get(element) ?? { last: null, images: 0 };
    if (!eye.last || moved(data, eye.last) >= movedShare) {
      eye.images++;
      eye.last = data;
    }
    eyes.set(element, eye);
    const frames = element.getVideoPlaybackQuality().totalVideoFrames;
    if (eye.images < seen.images) return;
    seen = { frames, images: eye.images, width: element.videoWidth, height: element.videoHeight };
  }

  function listen(track) {
    if (!ears.has(track.id)) {
      sound ??= new AudioContext();
      const analyser = new AnalyserNode(sound, { fftSize: 8192, smoothingTimeConstant: 0 });
      sound.createMediaStreamSource(new MediaStream([track])).connect(analyser);
      ears.set(track.id, analyser);
    }
    const analyser = ears.get(track.id);
    const spectrum = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(spectrum);
    let peak = 0;
    for (let i = 1; i < spectrum.length; i++) if (spectrum[i] > spectrum[peak]) peak = i;
    return { level: spectrum[peak], hz: Math.round(peak * sound.sampleRate / analyser.fftSize) };
  }

  async function energy() {
    let sum = 0;
    for (const peer of peers) {
      for (const report of (await peer.getStats()).values()) {
        if (report.type === "inbound-rtp" && report.kind === "audio") sum += report.totalAudioEnergy ?? 0;
      }
    }
    return sum;
  }

  // streams are the remote videos of each connection, by a name that is never
  // used again, with the number of their frames that were decoded.
  const names = new WeakMap(); // peer connection -> name
  let named = 0;
  async function streams() {
    const decoded = {};
    for (const peer of peers) {
      if (!names.has(peer)) names.set(peer, ++named);
      for (const report of (await peer.getStats()).values()) {
        if (report.type === "inbound-rtp" && report.kind === "video") {
          decoded[`${names.get(peer)} ${report.id}`] = report.framesDecoded ?? 0;
        }
      }
    }
    return decoded;
  }

  async function measure() {
    const remote = remoteTracks();
    const videos = playing("video", "video", remote);
    const audios = playing("audio, video", "audio", remote);
    for (const { element } of videos) look(element);
    let loudest = { level: silence, hz: 0 };
    for (const { element, track } of audios) {
      if (element.muted || element.volume === 0) continue;
      const heard = listen(track);
      if (heard.level > loudest.level) loudest = heard;
    }
    const encrypted = [...videos, ...audios].map(({ track }) => remote.get(track.id));
    return {
      ...seen,
      energy: await energy(),
      peakHz: loudest.hz,
      encrypted: encrypted.length > 0 && encrypted.every(Boolean),
    };
  }

  const frame = () => document.querySelector("iframe")?.contentWindow;
  const short = (text) => (text ?? "").replace(/\s+/g, " ").trim().slice(0, 600);

  window.passerelleProbe = {
    // Of the frame, or of the page itself where there is none.
    measure: () => (frame()?.passerelleProbe ?? { measure }).measure(),
    streams: () => (frame()?.passerelleProbe ?? { streams }).streams(),
    state: () => document.documentElement.dataset.state ?? "",
    inCall: () => [...document.querySelectorAll("#people [data-user]")].map((item) => item.dataset.user),
    shown: () => `${document.documentElement.dataset.state}: ${short(document.body.innerText)}` +
      (frame() ? ` | in the frame: ${short(frame().document.body.innerText)}` : ""),
    // The middle of Element Call's button, where a click at that point meets it.
    leaveButton: () => {
      const button = frame()?.document.querySelector('[data-testid="incall_leave"]');
      if (!button) return null;
      const outer = document.querySelector("iframe").getBoundingClientRect();
      const inner = button.getBoundingClientRect();
      const x = inner.x + inner.width / 2;
      const y = inner.y + inner.height / 2;
      const hit = frame().document.elementFromPoint(x, y);
      return button.contains(hit) ? { X: outer.x + x, Y: outer.y + y } : null;
    },
  };
})();
