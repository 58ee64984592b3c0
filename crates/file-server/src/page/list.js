// The list of the folder: it is searched, ordered, turned and renewed without a reload. So uploads
// continue meanwhile, and the focus stays where it is.

const TYPING_MILLIS = 150;
// What tells an element of a list, so that it is found in a newer one.
const MARKS = ["rel", "href", "value", "aria-label"];

const found = document.getElementById("found");
const search = document.getElementById("search");
const field = search.elements.search;
// The functions that complete a list, which the server has made for everybody.
const completions = [showLocalTimes];
let loading = null, typing = 0;

// Shows a list of this folder.
async function show(url) {
  loading?.abort();
  const {signal} = (loading = new AbortController());
  try {
    const reply = await fetch(url, {signal});
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const fresh = page.getElementById("list");
    if (!fresh) throw new Error(page.body.textContent.trim());
    replaceList(fresh);
    // Only a change of the text is read aloud.
    const text = page.getElementById("found").textContent.trim();
    if (found.textContent.trim() !== text) found.textContent = text;
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    const isLost = error instanceof TypeError;
    found.textContent = `The list is not new: ${isLost ? "the server does not answer" : error.message}`;
    return false;
  }
}

const refresh = () => show(location.href);

function replaceList(fresh) {
  const old = document.getElementById("list");
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const row = focused?.closest("tr")?.rowIndex;
  old.replaceWith(fresh);
  for (const complete of completions) complete(fresh);
  if (!focused) return;
  const mark = MARKS.find((name) => focused.hasAttribute(name));
  const isSame = (one) => one.getAttribute(mark) === focused.getAttribute(mark);
  const rows = fresh.querySelector("table").rows;
  // If it is gone, what is now in its place.
  const place = rows[Math.min(row, rows.length - 1)];
  const next = [...fresh.querySelectorAll(focused.tagName)].find(isSame)
    ?? place?.querySelector("a, button") ?? field;
  next.focus({preventScroll: true});
}

// Shows another part of the list, to which the way back leads.
async function turn(url) {
  if (!await show(url)) return;
  history.pushState(null, "", url);
  showSearch();
}

function showSearch() {
  if (document.activeElement !== field) field.value = new URLSearchParams(location.search).get("search") ?? "";
}

function searchNow() {
  clearTimeout(typing);
  const url = new URL(location.href);
  url.searchParams.delete("page");
  if (field.value) url.searchParams.set("search", field.value);
  else url.searchParams.delete("search");
  history.replaceState(null, "", url);
  show(url);
}

// The list has times in UTC.
function showLocalTimes(list) {
  for (const cell of list.querySelectorAll("td:nth-child(3)")) {
    const moment = new Date(`${cell.textContent.replace(" ", "T")}Z`);
    if (isNaN(moment)) continue;
    moment.setMinutes(moment.getMinutes() - moment.getTimezoneOffset());
    cell.textContent = moment.toISOString().slice(0, 16).replace("T", " ");
  }
  list.querySelector("th:nth-child(3) button").firstChild.data = "time";
}

field.oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(searchNow, TYPING_MILLIS);
};
search.onsubmit = (event) => {
  event.preventDefault();
  searchNow();
};
document.addEventListener("submit", (event) => {
  if (!event.target.matches("#list form")) return;
  event.preventDefault();
  turn(`./?${new URLSearchParams(new FormData(event.target, event.submitter))}`);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("#list .button");
  const isForTab = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
  if (!link || isForTab) return;
  event.preventDefault();
  turn(link.href).then(() => scrollTo(0, 0));
});
addEventListener("popstate", () => {
  showSearch();
  refresh();
});
// Typing searches.
search.querySelector("button").hidden = true;
showLocalTimes(document.getElementById("list"));
