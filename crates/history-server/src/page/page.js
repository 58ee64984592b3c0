// Shows new lines as they come, and takes away those that are deleted. Without it the page is as new as
// when it was loaded.
"use strict";

// As many lines as the server puts on a page.
const ROWS_MAX = 200;
const RETRY_MILLIS = 2000;

const status = document.querySelector("[role=status]");
const older = document.querySelector("#older");
let body = document.querySelector("tbody");
let events;
// The lines that came since the last frame, each a row that the server has made.
let waiting = [];

function show() {
  const template = document.createElement("template");
  template.innerHTML = waiting.reverse().join("");
  waiting = [];
  for (const row of template.content.children) document.getElementById(row.id)?.remove();
  body.prepend(template.content);
  if (body.rows.length <= ROWS_MAX) return;
  while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
  const address = new URL(older.href);
  address.searchParams.set("before", sequence(body.lastElementChild));
  older.href = address.href;
  older.hidden = false;
}

function sequence(row) {
  return Number(row.id.slice("line-".length));
}

function follow() {
  events?.close();
  waiting = [];
  events = new EventSource(body.dataset.events);
  events.onopen = () => { status.textContent = "New lines appear by themselves."; };
  events.onmessage = (line) => {
    if (waiting.length === 0) requestAnimationFrame(show);
    waiting.push(line.data);
    // Of a flood, only the end is seen.
    if (waiting.length > 2 * ROWS_MAX) waiting = waiting.slice(-ROWS_MAX);
  };
  events.addEventListener("deleted", (message) => {
    const [first, last] = message.data.split("-").map(Number);
    if (waiting.length > 0) show();
    for (const row of [...body.rows]) {
      if (first <= sequence(row) && sequence(row) <= last) row.remove();
    }
  });
  events.onerror = () => {
    events.close();
    status.textContent = "New lines do not appear: the server does not answer. Trying again.";
    setTimeout(reload, RETRY_MILLIS);
  };
}

// What was deleted meanwhile is not told, so the table is loaded anew.
async function reload() {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const loaded = page.querySelector("tbody[data-events]");
    if (!loaded) throw new Error("no table");
    body.replaceWith(loaded);
    body = loaded;
    follow();
  } catch {
    setTimeout(reload, RETRY_MILLIS);
  }
}

if (body?.dataset.events) {
  follow();
  // A page that nobody sees needs no connection, of which a browser has few.
  document.addEventListener("visibilitychange", () => {
    events.close();
    reload();
  });
}
