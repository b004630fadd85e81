// The page: its controls, the transcript, and what is told to people who hear it.

import { openFile, openMicrophone } from "./audio.js";
import { transcribe } from "./listen.js";
import { endsLine, toJson, toSrt, toText } from "./transcript.js";

const at = (id) => document.getElementById(id);
const QUIETEST = -60; // dBFS

let about = null; // the server's version, model, description, delays_ms, languages
let key = "";
let source = null; // that is being transcribed
let words = [];
let offset = 0; // seconds of earlier recordings in this transcript
let saved = { source: null, model: null, language: null, complete: true };

// -- What the server has

async function connect() {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch("page/about.json", { headers });
  } catch {
    return complain("The server cannot be reached. Is it running?");
  }
  if (response.status === 401) {
    at("key-form").hidden = false;
    at("key").focus();
    return key && complain("The server does not know this key.");
  }
  if (!response.ok) return complain(`The server answered ${response.status}.`);
  about = await response.json();
  complain("");
  at("key-form").hidden = true;
  at("controls").hidden = false;
  at("description").textContent = `${about.model}: ${about.description}`;
  fill(at("delay"), [["", "the model's own"], ...about.delays_ms.map((ms) => [ms, `${ms} ms`])]);
  fill(at("languages"), about.languages.map((code) => [code, code]));
  at("record").focus();
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

// -- One recording

async function record(open, name) {
  complain("");
  say("Connecting…");
  setBusy(true);
  const isFirst = !words.length;
  let complete = true;
  try {
    source = await open();
    const { duration } = await transcribe(source, chosen(), {
      onOpen: () => say(name ? `Transcribing ${name}.` : "Listening."),
      onWords: show,
      onSegment: speak,
      onFigures: showFigures,
    });
    offset += duration;
    say("Done.");
  } catch (error) {
    complete = source === null; // nothing was heard, and nothing is missing
    say("");
    complain(error.message);
    offset = words.at(-1)?.end ?? offset;
  } finally {
    source?.stop();
    source = null;
    saved = { source: isFirst ? name : null, model: about.model,
      language: at("language").value.trim() || null,
      complete: complete && (isFirst || saved.complete) };
    at("tentative").textContent = "";
    setBusy(false);
  }
}

function chosen() {
  const vocabulary = at("vocabulary").value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { key, vocabulary, delay: at("delay").value, language: at("language").value.trim() };
}

function setBusy(busy) {
  at("record").textContent = busy ? "Stop" : "Start microphone";
  at("choose").disabled = busy;
  for (const field of at("options").querySelectorAll("input, select, textarea")) field.disabled = busy;
  at("options").open &&= !busy; // the transcript moves into sight
  enableKeeping();
  if (!busy) at("level").value = QUIETEST;
}

function showFigures({ heard, lag, peak }) {
  if (heard !== undefined) at("heard").textContent = seconds(heard);
  if (lag !== undefined) at("lag").textContent = seconds(lag);
  if (peak !== undefined) {
    const level = Math.max(QUIETEST, 20 * Math.log10(peak || 1e-9));
    at("level").value = level;
    at("level").textContent = `${Math.round(level)} dBFS`;
  }
}

const seconds = (value) => `${value.toFixed(1)} s`;

// -- The transcript

function show(certain, tentative) {
  const box = at("transcript");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  for (const word of certain) {
    word.start = later(word.start);
    word.end = later(word.end);
    const begins = !words.length || endsLine(words, word);
    at("words").append(begins ? (words.length ? "\n" : "") + word.text.trimStart() : word.text);
    words.push(word);
  }
  at("tentative").textContent = words.length ? tentative : tentative.trimStart();
  if (certain.length) enableKeeping();
  if (follows) box.scrollTop = box.scrollHeight;
}

/** Lets screen readers tell a line that is final, behind those before it. */
function speak(text) {
  const line = document.createElement("span");
  line.textContent = `${text} `;
  at("spoken").append(line);
  if (at("spoken").childElementCount > 20) at("spoken").firstElementChild.remove();
}

/** Seconds of a recording as those of the transcript, to the millisecond. */
function later(seconds) {
  return Number((offset + seconds).toFixed(3));
}

function enableKeeping() {
  for (const button of at("keep").querySelectorAll("button")) button.disabled = !words.length;
  at("clear").disabled = !words.length || source !== null;
}

function clear() {
  words = [];
  offset = 0;
  for (const id of ["words", "tentative", "spoken"]) at(id).textContent = "";
  enableKeeping();
  say("The transcript is empty.");
  at("record").focus();
}

function save(text, suffix, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = `transcript.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`Saved as transcript.${suffix}.`);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(toText(words));
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(at("words"));
    say("The browser does not let this page copy: the text is selected, copy it by hand.");
  }
}

// -- What is told

function say(text) {
  at("status").textContent = text;
}

function complain(text) {
  at("alert").hidden = !text;
  at("alert").textContent = text;
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value;
  connect();
});
at("record").addEventListener("click", () => {
  if (source) source.stop();
  else if (!at("choose").disabled) record(openMicrophone, null);
});
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  at("file").value = "";
  if (file) record(() => openFile(file), file.name);
});
at("copy").addEventListener("click", copy);
at("save-txt").addEventListener("click", () => save(toText(words), "txt", "text/plain"));
at("save-srt").addEventListener("click", () => save(toSrt(words), "srt", "application/x-subrip"));
at("save-json").addEventListener("click", () => {
  const duration = Math.max(offset, words.at(-1).end);
  save(toJson(words, { version: about.version, duration, ...saved }), "json", "application/json");
});
at("clear").addEventListener("click", clear);

connect();
