// One transcription over the server's /v1/listen, whose dialect docs/serve.md describes.

const MOST_LAG = 8; // seconds of audio that are sent ahead of the transcript
const MOST_BUFFERED = 1 << 20; // bytes that the browser has yet to send
const KEEP_ALIVE_MS = 4000;
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/**
 * Sends a source's audio, and tells what comes back:
 *   onOpen(); onWords(words, tentative): words are certain from now on; onSegment(text);
 *   onFigures({heard, lag, peak}).
 * Resolves to {duration} when the server has sent all; throws an Error with a message for people.
 */
export async function transcribe(source, { key, delay, language, vocabulary }, told) {
  const socket = open(source.rate, { key, delay, language, vocabulary });
  let sent = 0; // seconds
  let done = 0; // seconds that the server has transcribed
  let failure = null;
  let duration = null;
  let isOpen = false;
  let isEnding = false; // CloseStream was sent
  let shown = 0; // words of the open result that were told
  let wake = () => {};

  const closed = new Promise((resolve) => {
    socket.onclose = ({ code, reason }) => {
      if (duration === null || !isEnding) {
        failure ??= new Error(isOpen
          ? `The server ended the connection (${code}${reason && `: ${reason}`}).`
          : "The server does not take the connection: it may be full. Try again in a while.");
      }
      source.stop();
      wake();
      resolve();
    };
  });
  const opened = new Promise((resolve) => {
    socket.onopen = () => { isOpen = true; resolve(); };
    closed.then(resolve);
  });
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "Results") {
      done = Math.max(done, message.start + message.duration);
      const { transcript, words, tentative } = message.channel.alternatives[0];
      told.onWords(words.slice(shown).map(asWord), tentative ?? "");
      shown = message.is_final ? 0 : words.length;
      if (message.is_final && transcript) told.onSegment(transcript);
      told.onFigures({ lag: Math.max(0, sent - done) });
    } else if (message.type === "Metadata") {
      duration = message.duration;
    } else if (message.type === "Error") {
      failure = new Error(message.description);
    }
    wake();
  };

  await opened;
  const alive = setInterval(() => {
    if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"KeepAlive"}');
  }, KEEP_ALIVE_MS);
  try {
    if (!failure) told.onOpen();
    for await (const { pcm, peak } of source.blocks()) {
      if (socket.readyState !== WebSocket.OPEN) break;
      if (pcm.byteLength) socket.send(pcm);
      sent += pcm.byteLength / 2 / source.rate;
      told.onFigures({ heard: sent, peak });
      while (sent - done > MOST_LAG || socket.bufferedAmount > MOST_BUFFERED) {
        if (socket.readyState !== WebSocket.OPEN) break;
        await woken();
      }
    }
    if (socket.readyState === WebSocket.OPEN) {
      socket.send('{"type":"CloseStream"}');
      isEnding = true;
    }
    await closed;
  } finally {
    clearInterval(alive);
    socket.close();
  }
  if (failure) throw failure;
  return { duration };

  function woken() { // by a message or the end; bufferedAmount has no event
    return new Promise((resolve) => { wake = resolve; setTimeout(resolve, 200); });
  }
}

function open(rate, { key, delay, language, vocabulary }) {
  const url = new URL("v1/listen", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const query = url.searchParams;
  query.set("encoding", "linear16");
  query.set("sample_rate", rate);
  query.set("interim_results", "true");
  query.set("endpointing", "500");
  if (delay) query.set("delay_ms", delay);
  if (language) query.set("language", language);
  for (const term of vocabulary) query.append("keyterm", term);
  // A page cannot set headers of a WebSocket: a key travels as the name of a protocol, unless it
  // has characters that such names have not.
  if (key && !TOKEN.test(key)) query.set("api_key", key);
  return new WebSocket(url, key && TOKEN.test(key) ? ["token", key] : []);
}

function asWord({ text, start, end, confidence }) {
  return { text, start, end, probability: confidence };
}
