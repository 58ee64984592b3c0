"use strict";
// Uploads the files and folders that are chosen or dropped, a few files at a time. Each file has a bar,
// a button to cancel it, and a result that stays. The page asks before it replaces a file, and each
// request is conditional: a file that somebody else saves meanwhile is not lost.
{
const AT_ONCE = 3;
// More files at once are a mistake, and more rows than a page can show.
const FILES_MAX = 10000;
// The most rows of each state: more would make the page slow. When one leaves, another is shown.
const ROWS_MAX = 100;
const LOST = "the connection was lost";
const WORDS = {
  running: "uploading", waiting: "waiting", asking: "there already", done: "uploaded",
  failed: "failed", skipped: "skipped", cancelled: "cancelled",
};
const BUSY = ["asking", "waiting", "running"];

const form = document.getElementById("upload");
const panel = document.getElementById("uploads");
const [status, choicesForAll] = panel.firstElementChild.children;
const list = panel.querySelector("ul");
const template = panel.querySelector("template").content.firstElementChild;

const uploads = new Set();
const queue = [];
const zeros = () => Object.fromEntries(Object.keys(WORDS).map((state) => [state, 0]));
// The number of uploads in each state, and the number of their rows in the list.
let counts = zeros(), rows = zeros();
// The answers if a file exists already. The first is harmless: `Cancel` stood there a moment ago.
const ANSWERS = {
  "Skip": (upload) => upload.show("skipped", "skipped", {}),
  "Keep both": (upload) => { upload.keepsBoth = true; upload.wait(); },
  "Replace": (upload) => upload.wait(upload.ifSame),
};
if ("createOnly" in form.dataset) delete ANSWERS.Replace;

let running = 0, isStale = false, access = null;

class Upload {
  // `batch` is shared by the files that were chosen together: it has the answer for all of them.
  constructor(file, path, batch) {
    this.file = file;
    this.path = this.wanted = path;
    this.batch = batch;
    this.row = template.cloneNode(true);
    [this.link, this.text, this.buttons, this.bar] = this.row.children;
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
    this.bar.value = 0;
    setButtons(this.buttons, choices);
    summarize();
  }

  // Shows its row, if the list has room for its state.
  putRow() {
    if (rows[this.state] === ROWS_MAX) return this.row.remove();
    rows[this.state]++;
    if (!this.row.isConnected) list.append(this.row);
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
    this.show("running", "", {Cancel: () => this.cancel()});
    try {
      const bytesMax = Number(form.dataset.bytesMax);
      if (this.file.size > bytesMax) throw new Error(`exceeds ${size(bytesMax)}`);
      await ask_for_password();
      let there = this.fields ? null : await this.find(signal);
      for (let n = 1; there && this.keepsBoth && n <= FILES_MAX; n++) {
        this.path = numbered(this.wanted, n);
        there = await this.find(signal);
      }
      if (there) return this.ask(there);
      if (signal.aborted) return;
      const reply = await this.send(this.fields ?? {"If-None-Match": "*"}, signal);
      if (signal.aborted) return;
      if (reply.status === 412) return this.ask(await this.find(signal));
      if (reply.status === 0) await this.read();
      if (reply.status !== 200 && reply.status !== 201) {
        throw new Error(reply.responseText.trim() || LOST);
      }
      isStale = true;
      this.link.href = this.url;
      this.show("done", size(this.file.size), {});
    } catch (error) {
      if (!signal.aborted) this.show("failed", error.message, {Retry: () => this.wait()});
    }
  }

  // The head of the file at this URL, if there is one.
  async find(signal) {
    const request = fetch(this.url, {method: "HEAD", redirect: "manual", cache: "no-store", signal});
    const reply = await request.catch(() => { throw new Error(LOST); });
    if (reply.type === "opaqueredirect") throw new Error("there is a folder of this name");
    return reply.ok ? reply : null;
  }

  // XMLHttpRequest, because `fetch` does not report progress.
  send(fields, signal) {
    const request = new XMLHttpRequest();
    const started = Date.now();
    signal.onabort = () => request.abort();
    request.upload.onprogress = ({loaded, total}) => {
      this.bar.value = total > 0 ? loaded / total : 1;
      const percent = Math.floor(100 * this.bar.value);
      const secs = (Date.now() - started) / 1000 * (total / loaded - 1);
      const left = secs < 90 ? `${Math.ceil(secs)} s` : `${Math.ceil(secs / 60)} min`;
      this.text.textContent = loaded < total
        ? `${percent} % of ${size(total)}, ${left} left` : "saving";
    };
    return new Promise((resolve) => {
      request.onloadend = () => resolve(request);
      request.open("PUT", this.url);
      for (const name in fields) request.setRequestHeader(name, fields[name]);
      request.send(this.file);
    });
  }

  // Fails if the file cannot be read any more: it was moved, changed or locked.
  async read() {
    // Reading a slice of a missing file gives no error.
    const reader = this.file.stream().getReader();
    await reader.read().catch(() => { throw new Error("the file cannot be read, or has changed"); });
    reader.cancel();
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

  cancel() {
    // A file that was sent completely may be saved by now.
    const isSent = this.bar.value === 1;
    isStale ||= isSent;
    const text = isSent ? "cancelled, perhaps too late" : "cancelled";
    this.show("cancelled", text, {Retry: () => this.wait()});
    this.abort?.abort();
  }
}

function next() {
  while (running < AT_ONCE && queue.length > 0) {
    const upload = queue.shift();
    if (upload.state !== "waiting") continue;
    running++;
    upload.run().finally(() => { running--; next(); });
  }
  if (running === 0 && isStale) refresh().catch(() => {});
}

// Makes the browser ask for the password, if one is needed, before it sends a file: it reads the reply
// only after it has sent everything. A request without a file changes nothing.
async function ask_for_password() {
  if (!("needsPassword" in form.dataset)) return;
  access ??= fetch("./", {method: "POST"}).catch(() => { throw new Error(LOST); });
  const reply = await access.finally(() => { access = null; });
  if (reply.status === 401) throw new Error("this needs a user and a password");
}

// Updates the list of the folder. The results stay.
async function refresh() {
  isStale = false;
  const reply = await fetch(location.href);
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const table = page.querySelector("table");
  if (table) document.querySelector("table").replaceWith(table);
}

function summarize() {
  panel.hidden = uploads.size === 0;
  const states = Object.keys(counts).filter((state) => counts[state] > 0);
  status.textContent = states.map((state) => `${counts[state]} ${WORDS[state]}`).join(", ")
    + (states.some((state) => counts[state] > ROWS_MAX) ? ` (${ROWS_MAX} of each are shown)` : "");
  const choices = {};
  if (isBusy()) choices["Cancel all"] = () => each(BUSY, (upload) => upload.cancel());
  else choices["Clear"] = clear;
  if (counts.failed > 1) choices["Retry failed"] = () => each(["failed"], (upload) => {
    if (upload.file) upload.wait();
  });
  if (counts.asking > 1) {
    for (const answer in ANSWERS) choices[`${answer} (all)`] = () => each(["asking"], (upload) => {
      upload.batch.answer = ANSWERS[answer];
      ANSWERS[answer](upload);
    });
  }
  setButtons(choicesForAll, choices);
}

function isBusy() {
  return BUSY.some((state) => counts[state] > 0);
}

function each(states, act) {
  for (const upload of uploads) if (states.includes(upload.state)) act(upload);
}

function clear() {
  uploads.clear();
  list.replaceChildren();
  counts = zeros();
  rows = zeros();
  summarize();
}

// Buttons that exist are kept, so that none loses the focus.
function setButtons(place, choices) {
  const labels = Object.keys(choices);
  while (place.childElementCount > labels.length) place.lastChild.remove();
  labels.forEach((label, at) => {
    const button = place.children[at] ?? place.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = label;
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

// Files that are chosen together may have the same name: phones call every picture `image.jpg`.
async function upload(files) {
  const batch = {};
  const paths = new Set();
  for await (const [file, path, state, text] of files) {
    if (paths.size === FILES_MAX) {
      return new Upload(null, path, batch).show("failed", `only ${FILES_MAX} files at once`, {});
    }
    let free = path;
    for (let n = 1; paths.has(free); n++) free = numbered(path, n);
    paths.add(free);
    const one = new Upload(file, free, batch);
    if (file) one.wait();
    else one.show(state, text, {});
  }
}

// The files in the entries that were dropped, with their paths; or a state and a text instead of a file.
async function* filesIn(entries) {
  while (entries.length > 0) {
    const entry = entries.shift();
    const path = entry.fullPath.slice(1);
    try {
      if (entry.isFile) {
        yield [await new Promise((resolve, reject) => entry.file(resolve, reject)), path];
        continue;
      }
      const reader = entry.createReader();
      let isEmpty = true;
      for (let some; some?.length !== 0; entries.push(...some)) {
        some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        isEmpty &&= some.length === 0;
      }
      if (isEmpty) yield [null, `${path}/`, "skipped", "an empty folder"];
    } catch {
      yield [null, path, "failed", "cannot be read"];
    }
  }
}

form.classList.add("script");
for (const hidden of form.querySelectorAll("[hidden]")) hidden.hidden = false;
form.onchange = ({target}) => {
  const path = (file) => file.webkitRelativePath || file.name;
  upload([...target.files].map((file) => [file, path(file)]));
  form.reset();
};
document.ondragover = (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("drop");
};
document.ondragleave = ({relatedTarget}) => {
  if (!relatedTarget) document.body.classList.remove("drop");
};
document.ondrop = (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.remove("drop");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
  upload(filesIn(entries.filter((entry) => entry)));
};
addEventListener("beforeunload", (event) => {
  if (isBusy()) event.preventDefault();
});
}
