// Shows new lines as they come, and takes away those that are deleted.

// As many lines as the server puts on a page.
const ROWS_MAX = 200;

const older = document.querySelector("#older");
// The lines that came since the last frame, each a row that the server has made.
let waiting = [];

function show() {
  const rows = rowsIn(waiting.reverse().join(""));
  waiting = [];
  for (const row of rows.children) document.getElementById(row.id)?.remove();
  body.prepend(rows);
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

follow({
  open: () => { waiting = []; },
  message: (row) => {
    if (waiting.length === 0) requestAnimationFrame(show);
    waiting.push(row);
    // Of a flood, only the end is seen.
    if (waiting.length > 2 * ROWS_MAX) waiting = waiting.slice(-ROWS_MAX);
  },
  deleted: (range) => {
    const [first, last] = range.split("-").map(Number);
    if (waiting.length > 0) show();
    for (const row of [...body.rows]) {
      if (first <= sequence(row) && sequence(row) <= last) row.remove();
    }
  },
});
