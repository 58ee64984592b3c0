// Follows the events of a table. Without it the page is as new as when it was loaded.
"use strict";

const RETRY_MILLIS = 2000;

const live = document.querySelector("[role=status]");
let body = document.querySelector("tbody[data-events]");
let events;

// Each handler of an event gets its data.
function follow(handlers) {
  function open() {
    events?.close();
    events = new EventSource(body.dataset.events);
    events.onopen = () => { live.textContent = live.dataset.live; };
    for (const [name, handle] of Object.entries(handlers)) {
      events.addEventListener(name, (event) => handle(event.data));
    }
    events.onerror = () => {
      events.close();
      live.textContent = "This page does not change: the server does not answer. Trying again.";
      setTimeout(reload, RETRY_MILLIS);
    };
  }

  // What has changed meanwhile is not told, so the table is loaded anew.
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
      open();
    } catch {
      setTimeout(reload, RETRY_MILLIS);
    }
  }

  if (!body) return;
  open();
  // A page that nobody sees needs no connection, of which a browser has few.
  document.addEventListener("visibilitychange", () => {
    events.close();
    reload();
  });
}

// The rows that an event has.
function rowsIn(text) {
  const template = document.createElement("template");
  template.innerHTML = text;
  return template.content;
}
