// Uploads the files and folders that are chosen or dropped, a few files at a time. Each file has a bar,
// a button to cancel it, and a result that stays. The page asks before it replaces a file, and each
// request is conditional: a file that somebody else saves meanwhile is not lost.

const AT_ONCE = 3;
// More files at once are a mistake, and more rows than a page can show.
const FILES_MAX = 10000;
// The most rows of each state: more would make the page slow. When one leaves, another is shown.
const ROWS_MAX = 100;
// How often at most the state of all uploads is read aloud.
const SPEAK_MILLIS = 5000;
const WORDS = {
  running: "uploading", waiting: "waiting", asking: "there already", lost: "waiting for the connection",
  done: "uploaded", failed: "failed", skipped: "skipped", cancelled: "cancelled",
};
const BUSY = ["asking", "waiting", "running", "lost"];

const form = document.getElementById("upload");
const panel = document.getElementById("uploads");
const spoken = document.getElementById("spoken");
const [summary, choicesForAll, allBar] =
  [".summary", ".choices", "progress"].map((part) => panel?.querySelector(part));

// The answers if a file exists already. The first is harmless: `Cancel` stood there a moment ago.
const ANSWERS = {
  "Skip": (upload) => upload.show("skipped", "skipped", {}),
  "Keep both": (upload) => { upload.keepsBoth = true; upload.wait(); },
  "Replace": (upload) => upload.wait(upload.ifSame),
};
if (form && "createOnly" in form.dataset) delete ANSWERS.Replace;

const uploads = new Set();
const queue = [];
const zeros = () => Object.fromEntries(Object.keys(WORDS).map((state) => [state, 0]));
const isCounted = (state) => state === "done" || BUSY.includes(state);
// The number of uploads in each state, and the number of their rows in the list.
let counts = zeros(), rows = zeros();
// The bytes of all uploads that are done or will be, and how many of them are sent.
let allBytes = 0, sentBytes = 0;
let running = 0, isStale = false, access = null, speaking = 0;

class Upload {
  // `batch` is shared by the files that were chosen together: it has the answer for all of them.
  // Without a file it is a folder.
  constructor(file, path, batch) {
    this.size = file?.size ?? 0;
    this.path = this.wanted = path;
    this.batch = batch;
    this.sent = 0;
    this.transfer = new Transfer(file, {
      progress: (...sent) => this.showProgress(...sent),
      pause: (...pause) => this.showPause(...pause),
    });
    this.row = panel.querySelector("template").content.firstElementChild.cloneNode(true);
    [this.link, this.text, this.buttons, this.bar] = this.row.children;
    this.bar.setAttribute("aria-label", path);
    uploads.add(this);
  }

  get url() {
    return "./" + this.path.split("/").map(encodeURIComponent).join("/");
  }

  // Shows the state, and the buttons for what can be done.
  show(state, text, choices) {
    const before = this.state, wasListed = this.row.isConnected;
    if (before) counts[before]--;
    counts[state]++;
    allBytes += this.size * (isCounted(state) - isCounted(before));
    this.row.className = this.state = state;
    if (wasListed) rows[before]--;
    this.putRow();
    if (wasListed && counts[before] > rows[before]) {
      for (const other of uploads) {
        if (other.state === before && !other.row.isConnected) {
          other.putRow();
          break;
        }
      }
    }
    this.link.textContent = this.path;
    this.text.textContent = text;
    setButtons(this.buttons, choices, this.path);
    if (state === "done") this.move(this.size);
    else if (state !== "lost" && state !== "running") this.move(0);
    summarize();
  }

  // Moves the bars to how many bytes are sent.
  move(bytes) {
    sentBytes += bytes - this.sent;
    this.sent = bytes;
    this.bar.value = this.size > 0 ? bytes / this.size : 1;
    allBar.value = allBytes > 0 ? sentBytes / allBytes : 1;
  }

  // Shows its row, if the list has room for its state.
  putRow() {
    if (rows[this.state] === ROWS_MAX) return this.row.remove();
    rows[this.state]++;
    if (!this.row.isConnected) panel.querySelector("ul").append(this.row);
  }

  // `fields` is the condition that follows from an answer; without it, no file may be replaced.
  wait(fields) {
    this.fields = fields;
    this.show("waiting", "waiting", {Cancel: () => this.cancel()});
    queue.push(this);
    next();
  }

  async run() {
    const {signal} = (this.abort = new AbortController());
    Object.assign(this.transfer, {signal, url: this.url});
    this.show("running", "", {Cancel: () => this.cancel()});
    try {
      await this.runUntil(signal);
    } catch (error) {
      if (!signal.aborted) this.show("failed", error.message, {Retry: () => this.wait()});
    }
  }

  async runUntil(signal) {
    const {transfer} = this;
    const bytesMax = Number(form.dataset.bytesMax);
    if (this.size > bytesMax) throw new Error(`exceeds ${size(bytesMax)}`);
    await askForPassword();
    let there = this.fields ? null : await transfer.find();
    for (let n = 1; there && this.keepsBoth && n <= FILES_MAX; n++) {
      this.path = numbered(this.wanted, n);
      transfer.url = this.url;
      there = await transfer.find();
    }
    if (there) return this.ask(there);
    signal.throwIfAborted();
    const reply = await transfer.send(this.fields ?? {"If-None-Match": "*"});
    signal.throwIfAborted();
    if (reply.status === 412) return this.ask(await transfer.find());
    if (!isOk(reply)) throw new Error(reply.responseText.trim() || `status ${reply.status}`);
    isStale = true;
    this.link.href = this.url;
    this.show("done", size(this.size), {});
  }

  // Shows how many bytes are sent, and how many of them since the request began.
  showProgress(bytes, bytesNow) {
    if (this.state === "lost") this.show("running", "", {Cancel: () => this.cancel()});
    if (bytesNow === 0) this.started = Date.now();
    this.move(bytes);
    if (bytesNow === 0) return;
    const percent = Math.floor(100 * this.bar.value);
    const secs = (Date.now() - this.started) / 1000 * (this.size - bytes) / bytesNow;
    const left = secs < 90 ? `${Math.ceil(secs)} s` : `${Math.ceil(secs / 60)} min`;
    this.text.textContent = bytes < this.size ? `${percent} % of ${size(this.size)}, ${left} left` : "saving";
  }

  showPause(why, secs) {
    this.show("lost", `${why}; trying again in ${secs} s`, {
      "Try now": () => this.transfer.tryNow?.(), Cancel: () => this.cancel(),
    });
  }

  ask(there) {
    // If the file is no longer the one that is shown here, the page asks again.
    const tag = there?.headers.get("ETag");
    this.ifSame = tag?.startsWith('"') ? {"If-Match": tag} : {};
    if (this.batch.answer && !this.isAnswered) {
      // Only once, or it could repeat for ever.
      this.isAnswered = true;
      return this.batch.answer(this);
    }
    const of = there ? `: ${size(there.headers.get("Content-Length"))}, ${moment(there)}` : "";
    const choices = {};
    for (const answer in ANSWERS) choices[answer] = () => ANSWERS[answer](this);
    this.show("asking", `there already${of}`, choices);
  }

  async cancel() {
    // A file that was sent completely may be saved by now, unless it can be taken back.
    const isSent = this.state === "running" && this.sent === this.size && !this.transfer.resource;
    isStale ||= isSent;
    this.show("cancelled", isSent ? "cancelled, perhaps too late" : "cancelled", {Retry: () => this.wait()});
    this.abort?.abort();
    if (await this.transfer.discard()) return;
    isStale = true;
    if (this.state === "cancelled") this.text.textContent = "cancelled too late";
    next();
  }
}

function next() {
  while (running < AT_ONCE && queue.length > 0) {
    const upload = queue.shift();
    if (upload.state !== "waiting") continue;
    running++;
    upload.run().finally(() => { running--; next(); });
  }
  if (running > 0 || !isStale) return;
  isStale = false;
  refresh();
}

// Makes the browser ask for the password, if one is needed, before it sends a file: it reads the reply
// only after it has sent everything. A request without a file changes nothing.
async function askForPassword() {
  if (!("needsPassword" in form.dataset)) return;
  access ??= fetch("./", {method: "POST"}).catch(() => { throw new Error(LOST); });
  const reply = await access.finally(() => { access = null; });
  if (reply.status === 401) throw new Error("this needs a user and a password");
}

function summarize() {
  panel.hidden = uploads.size === 0;
  const states = Object.keys(counts).filter((state) => counts[state] > 0);
  summary.textContent = states.map((state) => `${counts[state]} ${WORDS[state]}`).join(", ")
    + (states.some((state) => counts[state] > ROWS_MAX) ? ` (${ROWS_MAX} of each are shown)` : "");
  allBar.hidden = !isBusy() || uploads.size < 2;
  speak();
  const choices = {};
  if (isBusy()) choices["Cancel all"] = () => each(BUSY, (upload) => upload.cancel());
  else choices["Clear"] = clear;
  if (counts.lost > 1) choices["Try now (all)"] = () => each(["lost"], (upload) => upload.transfer.tryNow?.());
  if (counts.failed > 1) choices["Retry failed"] = () => each(["failed"], (upload) => {
    if (upload.transfer.file) upload.wait();
  });
  if (counts.asking > 1) {
    for (const answer in ANSWERS) choices[`${answer} (all)`] = () => each(["asking"], (upload) => {
      upload.batch.answer = ANSWERS[answer];
      ANSWERS[answer](upload);
    });
  }
  setButtons(choicesForAll, choices);
}

// Has the summary read aloud, but not each of its words.
function speak() {
  if (speaking || spoken.textContent === summary.textContent) return;
  spoken.textContent = summary.textContent;
  speaking = setTimeout(() => { speaking = 0; speak(); }, SPEAK_MILLIS);
}

function isBusy() {
  return BUSY.some((state) => counts[state] > 0);
}

function each(states, act) {
  for (const upload of uploads) if (states.includes(upload.state)) act(upload);
}

function clear() {
  uploads.clear();
  panel.querySelector("ul").replaceChildren();
  counts = zeros();
  rows = zeros();
  allBytes = sentBytes = 0;
  summarize();
  form.querySelector("input").focus();
}

// Buttons that exist are kept, so that none loses the focus. `what` they are for is read aloud.
function setButtons(place, choices, what) {
  const labels = Object.keys(choices);
  while (place.childElementCount > labels.length) place.lastChild.remove();
  labels.forEach((label, at) => {
    const button = place.children[at] ?? place.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = label;
    if (what) button.setAttribute("aria-label", `${label}: ${what}`);
    button.onclick = choices[label];
  });
}

// `image.jpg` as `image (1).jpg`.
function numbered(path, n) {
  return path.replace(/([^/])(\.[^./]*)?$/, `$1 (${n})$2`);
}

function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${Number(bytes).toFixed(unit > 0 && bytes < 9.95 ? 1 : 0)} ${units[unit]}`;
}

function moment(reply) {
  const modified = new Date(reply.headers.get("Last-Modified"));
  return modified.toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
}
