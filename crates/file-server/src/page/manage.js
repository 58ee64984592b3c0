// Creates folders, renames and deletes, if the server offers that. Each asks first, in one dialog that
// stays open until it is done, and says there why it is not.

const dialog = document.querySelector("dialog");
const create = document.getElementById("new-folder");

function canManage() {
  return dialog !== null;
}

// A name as a field can hold it.
const bare = (name) => name.replace(/[\r\n]/g, "");
const linkTo = (name) => `./${encodeURIComponent(name)}`;
const linksOfList = () => [...document.querySelectorAll("#list td:first-child a")];

// Puts a question, with a field if it has a label. `act` gets what was typed; it returns what to say
// instead of closing, or another question.
function question({title, text = "", label, value = "", yes, isDangerous = false, act}) {
  const [heading, explanation, labelled, alert, buttons] = dialog.firstElementChild.children;
  const input = labelled.querySelector("input");
  heading.textContent = title;
  explanation.textContent = text;
  explanation.hidden = !text;
  labelled.hidden = !label;
  labelled.firstElementChild.textContent = label ?? "";
  input.value = value;
  input.required = Boolean(label);
  alert.textContent = "";
  buttons.firstElementChild.textContent = yes;
  buttons.firstElementChild.className = isDangerous ? "danger" : "main";
  dialog.onsubmit = async (event) => {
    event.preventDefault();
    const button = buttons.firstElementChild;
    button.disabled = true;
    const said = await act(input.value).catch((error) => error.message);
    button.disabled = false;
    if (!said) dialog.close();
    else if (said.title) question(said);
    else alert.textContent = said;
  };
  if (!dialog.open) dialog.showModal();
  if (!label) return buttons.lastElementChild.focus();
  input.focus();
  // The extension is rarely what changes.
  input.setSelectionRange(0, value.lastIndexOf(".") > 0 ? value.lastIndexOf(".") : value.length);
}

// What the server says against it; nothing if it is done.
const refused = (reply) => isOk(reply) ? "" : reply.responseText.trim() || `status ${reply.status}`;

function wrongName(name) {
  if (name === "." || name === "..") return "this is no name";
  return name.includes("/") ? "a name has no slash" : "";
}

async function createFolder(name) {
  const wrong = wrongName(name);
  if (wrong) return wrong;
  const reply = await ask("MKCOL", linkTo(name));
  if (reply.status === 405) return `there is “${name}” already`;
  if (isOk(reply)) await showChanged(name);
  return refused(reply);
}

async function rename(link, name) {
  const wrong = wrongName(name);
  if (wrong) return wrong;
  const fields = {Destination: linkTo(name), Overwrite: "F"};
  // The destination is relative to the path, which would be the folder itself with its slash.
  const reply = await ask("MOVE", link.getAttribute("href").replace(/\/$/, ""), {fields});
  if (reply.status === 412) return `there is “${name}” already`;
  if (isOk(reply)) await showChanged(name);
  return refused(reply);
}

async function remove(link, fields) {
  const reply = await ask("DELETE", link.getAttribute("href"), {fields});
  if (reply.status === 409 && isFolder(link) && !fields) return deleteFull(link);
  if (isOk(reply)) {
    const at = linksOfList().indexOf(link);
    await refresh();
    focusOnClose(() => linksOfList().at(at) ?? linksOfList().at(-1));
  }
  return refused(reply);
}

// A question that is answered by the name, so that nobody answers it without reading.
function deleteFull(link) {
  const name = bare(nameOf(link));
  return {
    title: `Delete “${name}” with all that is in it?`,
    text: "The folder is not empty. What is in it cannot be brought back.",
    label: `Type ${name} to delete it all`,
    yes: "Delete it all",
    isDangerous: true,
    act: async (typed) => typed === name ? remove(link, {Depth: "infinity"}) : "this is not its name",
  };
}

async function showChanged(name) {
  await refresh();
  focusOnClose(() => linksOfList().find((link) => nameOf(link) === name));
}

// The dialog gives the focus back to what it was on, which may be gone.
function focusOnClose(find) {
  dialog.addEventListener("close", () => (find() ?? field).focus(), {once: true});
}

const isFolder = (link) => link.getAttribute("href").endsWith("/");
const nameOf = (link) => isFolder(link) ? link.textContent.slice(0, -1) : link.textContent;

const ACTIONS = {
  Rename: (link) => ({
    title: `Rename “${nameOf(link)}”`,
    label: "New name",
    value: nameOf(link),
    yes: "Rename",
    act: (name) => rename(link, name),
  }),
  Delete: (link) => ({
    title: `Delete “${nameOf(link)}”?`,
    text: "It cannot be brought back.",
    yes: "Delete",
    isDangerous: true,
    act: () => remove(link),
  }),
};

// A server that only grows deletes nothing; it renames only what replaces nothing.
if (form && "createOnly" in form.dataset) delete ACTIONS.Delete;

// Adds the buttons to the rows of a list.
function addActions(list) {
  const place = document.createElement("td");
  for (const label in ACTIONS) {
    const button = place.appendChild(document.createElement("button"));
    button.type = "button";
    button.title = label;
    const icon = button.appendChild(create.querySelector("svg").cloneNode(true));
    icon.firstElementChild.setAttribute("href", `#${label.toLowerCase()}`);
  }
  for (const row of list.querySelector("table").rows) {
    const link = row.querySelector("td a");
    const cell = row.appendChild(link ? place.cloneNode(true) : document.createElement("td"));
    if (link?.getAttribute("href") === "../") cell.replaceChildren();
    for (const button of cell.children) {
      button.setAttribute("aria-label", `${button.title}: ${nameOf(link)}`);
      button.onclick = () => question(ACTIONS[button.title](link));
    }
  }
}

if (canManage()) {
  completions.push(addActions);
  addActions(document.getElementById("list"));
  dialog.querySelector("[type=button]").onclick = () => dialog.close();
  create.hidden = false;
  create.onclick = () => question({
    title: "New folder", label: "Name", yes: "Create", act: createFolder,
  });
}
