// Changes the numbers as they do. What has not changed stays, and with it the focus.

function update(row) {
  const old = document.getElementById(row.id);
  if (!old) return false;
  [...row.cells].forEach((cell, at) => {
    if (cell.innerHTML !== old.cells[at].innerHTML) {
      old.cells[at].replaceChildren(...cell.childNodes);
      old.cells[at].className = cell.className;
    }
  });
  return true;
}

follow({
  rows: (text) => [...rowsIn(text).children].forEach(update),
  table: (text) => {
    const rows = [...rowsIn(text).children];
    const ids = new Set(rows.map((row) => row.id));
    for (const old of [...body.rows]) if (!ids.has(old.id)) old.remove();
    rows.forEach((row, at) => {
      if (!update(row)) body.insertBefore(row, body.rows[at] ?? null);
    });
  },
});
