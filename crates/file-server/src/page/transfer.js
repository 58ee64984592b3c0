// Sends one file: a small one in one request, a larger one as a resumable upload
// (draft-ietf-httpbis-resumable-upload). If the connection is lost, it asks the server how much has
// arrived, and sends the rest, also if the server was restarted meanwhile or the page was reloaded.

// A file up to this size, in bytes, is sent again instead.
const WHOLE_BYTES_MAX = 1 << 20;
// How long to wait before another try; the last one repeats. Progress starts anew.
const PAUSES_SECS = [1, 2, 4, 8, 15, 30];
const TRIES = 30;
// What this browser remembers of unfinished uploads begins with this.
const REMEMBERED = "quartet-upload ";
const LOST = "the connection was lost";

// A request that got no reply, or one that says to try again.
class Lost extends Error {}

// Makes a request. `XMLHttpRequest`, because `fetch` does not report progress.
function ask(method, url, {fields = {}, body = null, signal, onprogress} = {}) {
  const request = new XMLHttpRequest();
  const abort = () => request.abort();
  signal?.addEventListener("abort", abort);
  return new Promise((resolve, reject) => {
    request.onloadend = () => {
      signal?.removeEventListener("abort", abort);
      if (request.status === 0) reject(new Lost(LOST));
      else resolve(request);
    };
    request.open(method, url);
    if (onprogress) request.upload.onprogress = onprogress;
    for (const name in fields) request.setRequestHeader(name, fields[name]);
    request.send(body);
  });
}

const isOk = (reply) => reply.status >= 200 && reply.status < 300;
// An upload is elsewhere than this page thought, or somebody else is at it.
const isForLater = (reply) => [423, 503].includes(reply.status)
  || reply.status === 409 && reply.getResponseHeader("Upload-Offset") !== null;
const isComplete = (reply) => reply.getResponseHeader("Upload-Complete")?.trim() === "?1";

class Transfer {
  // `shows.progress` is told how many bytes of the file are sent, and how many of them in this request;
  // `shows.pause` why there is a pause, and for how many seconds.
  constructor(file, shows) {
    Object.assign(this, {file, shows, url: null, signal: null, resource: null, offset: 0});
  }

  // The head of the file that is at the URL now, if there is one.
  find() {
    return this.again(async () => {
      const options = {method: "HEAD", redirect: "manual", cache: "no-store", signal: this.signal};
      const reply = await fetch(this.url, options).catch(() => { throw new Lost(LOST); });
      if (reply.type === "opaqueredirect") throw new Error("there is a folder of this name");
      return reply.ok ? reply : null;
    });
  }

  // Sends the file on the conditions in `fields`; returns the last reply.
  send(fields) {
    const isWhole = this.file.size <= WHOLE_BYTES_MAX;
    return this.again(() => isWhole ? this.put(fields) : this.resume(fields));
  }

  async again(act) {
    let tries = 0;
    for (;;) {
      const before = this.offset;
      try {
        return await act();
      } catch (error) {
        if (!(error instanceof Lost) || this.signal.aborted) throw error;
        await this.read();
        if (this.offset > before) tries = 0;
        if (tries === TRIES) throw error;
        await this.pause(error.message, PAUSES_SECS[Math.min(tries++, PAUSES_SECS.length - 1)]);
      }
    }
  }

  put(fields) {
    return this.ask("PUT", this.url, fields, this.file);
  }

  async resume(fields) {
    const conditions = JSON.stringify(fields);
    if (this.conditions !== conditions) await this.discard();
    this.conditions = conditions;
    this.resource ??= this.recall();
    const isKnown = this.resource && await this.look();
    if (isKnown === "complete") return this.forget({status: 200});
    if (!isKnown) {
      const reply = await this.create(fields);
      if (!isOk(reply)) return reply;
    }
    const reply = await this.ask("PATCH", this.resource, {
      "Content-Type": "application/partial-upload",
      "Upload-Offset": this.offset,
      "Upload-Complete": "?1",
    }, this.file.slice(this.offset));
    if (isOk(reply) || isComplete(reply)) return this.forget(reply);
    // Another condition needs another upload.
    if (reply.status === 412) await this.discard();
    return reply;
  }

  async create(fields) {
    this.offset = 0;
    const reply = await this.ask("POST", this.url, {
      ...fields, "Upload-Complete": "?0", "Upload-Length": this.file.size,
    });
    const place = reply.getResponseHeader("Location");
    if (!isOk(reply) || !place) return reply;
    this.resource = new URL(place, new URL(this.url, location.href)).href;
    const secs = /max-age=(\d+)/.exec(reply.getResponseHeader("Upload-Limit"))?.[1] ?? 0;
    this.remember(Date.now() + 1000 * secs);
    return reply;
  }

  // Asks how much has arrived: whether there is such an upload, or that it is complete.
  async look() {
    const reply = await this.ask("HEAD", this.resource);
    if (!isOk(reply)) {
      this.forget();
      return false;
    }
    if (isComplete(reply)) return "complete";
    this.offset = Number(reply.getResponseHeader("Upload-Offset"));
    return this.offset <= this.file.size;
  }

  // Tells the server that the rest will not come; returns whether it was in time.
  async discard() {
    const {resource} = this;
    if (!resource) return true;
    this.forget();
    const reply = await ask("DELETE", resource).catch(() => null);
    return reply !== null && reply.status !== 409;
  }

  async ask(method, url, fields, body = null) {
    const {offset, shows, signal} = this;
    const onprogress = body && (({loaded}) => shows.progress(offset + loaded, loaded));
    if (body) shows.progress(offset, 0);
    const reply = await ask(method, url, {fields, body, signal, onprogress});
    if (isForLater(reply)) throw new Lost(reply.responseText.trim() || LOST);
    return reply;
  }

  pause(why, secs) {
    this.shows.pause(why, secs);
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        removeEventListener("online", end);
        this.signal.removeEventListener("abort", end);
        this.tryNow = null;
        resolve();
      };
      const timer = setTimeout(end, 1000 * secs);
      addEventListener("online", end);
      this.signal.addEventListener("abort", end);
      this.tryNow = end;
    }).then(() => this.signal.throwIfAborted());
  }

  // Fails if the file cannot be read any more: it was moved, changed or locked.
  async read() {
    // Reading a slice of a missing file gives no error.
    const reader = this.file.stream().getReader();
    await reader.read().catch(() => { throw new Error("the file cannot be read, or has changed"); });
    reader.cancel();
  }

  // What a file is called in this browser, to be found by it after a reload.
  get key() {
    const {pathname} = new URL(this.url, location.href);
    return [REMEMBERED, pathname, this.file.size, this.file.lastModified].join(" ");
  }

  remember(until) {
    const {resource, conditions} = this;
    inUse.add(resource);
    stored((storage) => storage.setItem(this.key, JSON.stringify({resource, conditions, until})));
  }

  // The unfinished upload of this file on the same conditions, unless this page is at it.
  recall() {
    const known = stored((storage) => JSON.parse(storage.getItem(this.key)));
    if (known?.conditions !== this.conditions || inUse.has(known.resource)) return null;
    inUse.add(known.resource);
    return known.resource;
  }

  forget(reply) {
    inUse.delete(this.resource);
    this.resource = null;
    this.offset = 0;
    stored((storage) => storage.removeItem(this.key));
    return reply;
  }
}

// The unfinished uploads that this page is at.
const inUse = new Set();

// What a browser keeps may be switched off, or full.
function stored(use) {
  try {
    return use(localStorage);
  } catch {
    return null;
  }
}

// Nobody continues what the server has dropped.
stored((storage) => {
  for (const key of Object.keys(storage)) {
    if (!key.startsWith(REMEMBERED)) continue;
    if (!(JSON.parse(storage.getItem(key)).until > Date.now())) storage.removeItem(key);
  }
});
