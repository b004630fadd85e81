// Words as text, subtitles and JSON. Pure functions.
//
// A word is {text, start, end, probability}: its text carries its leading space, as in the JSON
// of "voxfast transcribe", times are seconds.

const COLUMNS = 42;
const LINES = 2;
const PAUSE_SECONDS = 0.8;
const MOST_SECONDS = 7;
const LEAST_SECONDS = 1;
const WIDE = /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\u3000-\u303f\uff00-\uff60]/u;

export function joined(words) {
  return words.map((word) => word.text).join("").trim();
}

/** A line for each sentence, or what was said up to a pause. */
export function toText(words) {
  return grouped(words, endsLine).map((group) => joined(group) + "\n").join("");
}

/** SubRip: captions of two lines, of at most 7 s, that do not overlap. */
export function toSrt(words) {
  const groups = grouped(words, endsCaption);
  return groups.map((group, i) => {
    const next = groups[i + 1]?.[0].start ?? Infinity;
    const start = group[0].start;
    const end = Math.min(Math.max(endOf(group), start + LEAST_SECONDS), Math.max(next, start));
    return `${i + 1}\n${time(start)} --> ${time(end)}\n${lines(group).join("\n")}\n\n`;
  }).join("");
}

/** The JSON of "voxfast transcribe --format json". */
export function toJson(words, { version, source, model, language, duration, complete }) {
  const segments = grouped(words, endsLine).map((group) => ({
    text: joined(group),
    start: group[0].start,
    end: endOf(group),
    probability: rounded(group.reduce((sum, word) => sum + word.probability, 0) / group.length, 4),
    words: group.length,
  }));
  const text = joined(words);
  const document = { schema: 1, version, source, model, language, duration: rounded(duration, 3),
    skipped: 0, complete, text, segments, words };
  return JSON.stringify(document, null, 2) + "\n";
}

function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

function grouped(words, ends) {
  const groups = [];
  for (const word of words) {
    const group = groups.at(-1);
    if (!group || ends(group, word)) groups.push([word]);
    else group.push(word);
  }
  return groups.filter((group) => joined(group));
}

/** Whether a line ends before a word, behind the last one of `group`. */
export function endsLine(group, word) {
  const last = group.at(-1);
  return word.start - last.end > PAUSE_SECONDS || /[.!?…。！？]["'”’»]?$/u.test(last.text);
}

function endsCaption(group, word) {
  return endsLine(group, word) || word.end - group[0].start > MOST_SECONDS ||
    lines([...group, word]).length > LINES;
}

function endOf(group) {
  return Math.max(...group.map((word) => word.end));
}

/** Words in lines of COLUMNS; full-width characters take two, and a line may end at them. */
function lines(words) {
  const found = [""];
  for (const { text } of words) {
    const line = found.at(-1);
    const mayBreak = /^\s/u.test(text) || WIDE.test(text);
    if (line && mayBreak && columns(line + text) > COLUMNS) found.push(text.trimStart());
    else found[found.length - 1] = (line + text).trimStart();
  }
  return found.map((line) => line.trim());
}

function columns(text) {
  let count = 0;
  for (const character of text) count += WIDE.test(character) ? 2 : 1;
  return count;
}

function time(seconds) {
  const all = Math.max(0, Math.round(seconds * 1000));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, whole] = [all / 3600000, (all / 60000) % 60, (all / 1000) % 60].map(Math.floor);
  return `${two(hours)}:${two(minutes)}:${two(whole)},${String(all % 1000).padStart(3, "0")}`;
}
