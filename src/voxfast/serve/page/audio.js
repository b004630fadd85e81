// Where audio comes from: the microphone, or a file that the browser can decode.
//
// A source has `rate` (Hz), `blocks()`, which yields {pcm: ArrayBuffer, peak}: 16-bit mono, and
// `stop()`, which ends the blocks and frees the microphone.

const FILE_RATE = 16000;
const FILE_BLOCK = 8000; // samples
const MOST_FILE_BYTES = 400e6; // browsers decode a file into memory, all of it

/** The microphone, until `stop()`. Throws an Error with a message for people. */
export async function openMicrophone() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the microphone to localhost and https pages only. Open this " +
      "page as http://localhost, or put a proxy with a certificate before the server.");
  }
  let stream;
  try {
    // Models are trained on sound as it is; what browsers do for calls takes some of it away.
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1,
      echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch (error) {
    const reasons = {
      NotAllowedError: "The browser was not allowed to use the microphone.",
      NotFoundError: "There is no microphone.",
      NotReadableError: "Another program holds the microphone.",
    };
    throw new Error(reasons[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
  const context = new AudioContext();
  const release = () => {
    for (const track of stream.getTracks()) track.stop();
    return context.close();
  };
  try {
    return await recorded(stream, context, release);
  } catch (error) {
    await release();
    throw error;
  }
}

async function recorded(stream, context, release) {
  await context.audioWorklet.addModule("page/worklet.js");
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const queue = [];
  let ended = false;
  let wake = () => {};
  node.port.onmessage = ({ data }) => {
    if (ended) return;
    queue.push(data);
    ended = data.isLast; // blocks that were on their way when `stop` was called come before it
    if (ended) release();
    wake();
  };
  const stop = () => node.port.postMessage("end");
  stream.getAudioTracks()[0].onended = stop; // it was unplugged
  context.createMediaStreamSource(stream).connect(node);
  await context.resume();

  async function* blocks() {
    for (;;) {
      while (queue.length) yield queue.shift();
      if (ended) return;
      await new Promise((resolve) => { wake = resolve; });
    }
  }
  return { rate: context.sampleRate, blocks, stop };
}

/** A recording, decoded by the browser. Throws an Error with a message for people. */
export async function openFile(file) {
  if (file.size > MOST_FILE_BYTES) {
    throw new Error(`${file.name} is too large for a browser; use "voxfast transcribe".`);
  }
  let audio;
  try {
    const decoder = new OfflineAudioContext(1, 1, FILE_RATE);
    audio = await decoder.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`The browser cannot decode ${file.name}; use "voxfast transcribe".`);
  }
  let stopped = false;
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));

  async function* blocks() {
    for (let start = 0; start < audio.length && !stopped; start += FILE_BLOCK) {
      yield mixed(channels, start, Math.min(start + FILE_BLOCK, audio.length));
    }
  }
  return { rate: FILE_RATE, blocks, stop: () => { stopped = true; } };
}

function mixed(channels, start, end) {
  const block = new Int16Array(end - start);
  let peak = 0;
  for (let i = 0; i < block.length; i++) {
    let sample = 0;
    for (const channel of channels) sample += channel[start + i];
    sample /= channels.length;
    peak = Math.max(peak, Math.abs(sample));
    block[i] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
  }
  return { pcm: block.buffer, peak };
}
