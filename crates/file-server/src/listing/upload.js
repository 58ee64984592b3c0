const form = document.getElementById("upload");
const list = document.getElementById("progress");
let running = 0, failed = 0;

function upload(file) {
  const item = list.appendChild(document.createElement("li"));
  const bar = item.appendChild(document.createElement("progress"));
  const text = item.appendChild(document.createElement("span"));
  text.textContent = " " + file.name;
  const request = new XMLHttpRequest();
  request.upload.onprogress = (event) => { bar.max = event.total; bar.value = event.loaded; };
  request.onloadend = () => {
    const ok = request.status === 200 || request.status === 201;
    if (!ok) failed++;
    bar.max = bar.value = 1;
    text.textContent += ok ? ": done" : ": " + (request.responseText || "the connection was lost");
    if (--running === 0 && failed === 0) location.reload();
  };
  running++;
  request.open("PUT", location.pathname + encodeURIComponent(file.name));
  request.send(file);
}

form.onsubmit = (event) => {
  event.preventDefault();
  for (const file of form.elements.file.files) upload(file);
};
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  for (const file of event.dataTransfer.files) upload(file);
};
