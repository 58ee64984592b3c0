// Takes what is chosen in the form or dropped on the page, files and whole folders, and uploads it.

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
  next();
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
      if (isEmpty) yield [null, `${path}/`, ...await createEmpty(path)];
    } catch {
      yield [null, path, "failed", "cannot be read"];
    }
  }
}

// An upload creates the folders on its way. An empty one is created if the server creates folders.
async function createEmpty(path) {
  if (!canManage()) return ["skipped", "an empty folder"];
  const names = path.split("/").map(encodeURIComponent);
  for (let depth = 1; depth <= names.length; depth++) {
    const reply = await ask("MKCOL", `./${names.slice(0, depth).join("/")}`).catch(() => null);
    const isThere = reply?.status === 405;
    if (!reply || !isOk(reply) && !isThere) return ["failed", reply?.responseText.trim() ?? LOST];
  }
  isStale = true;
  return ["done", "an empty folder"];
}

if (form) {
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
