"""The layout of the site in Chromium: on a phone, on a tablet and on a desk."""

import json
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WIDTHS = (390, 768, 1280)
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Loads each page at each width, waits until its formulas are set, and sends what is wrong.
PROBE = """
<!DOCTYPE html>
<iframe></iframe>
<script>
const frame = document.querySelector("iframe");
frame.style = "border: 0; height: 800px";
async function load(page, width) {
  frame.width = width;
  await new Promise((done) => { frame.onload = done; frame.src = page; });
  const view = frame.contentWindow, inside = frame.contentDocument;
  inside.querySelectorAll("img").forEach((image) => { image.loading = "eager"; });
  if (view.MathJax) await view.MathJax.startup.promise;
  const all = (query) => [...inside.querySelectorAll(query)];
  const found = [];
  const extra = inside.documentElement.scrollWidth - width;
  if (extra > 0) found.push(`${extra} pixels too wide`);
  const errors = all("mjx-merror, [data-mjx-error]").length;
  if (errors) found.push(`${errors} formulas with an error`);
  const unset = all(".math").filter((box) => !box.querySelector("mjx-container")).length;
  if (unset) found.push(`${unset} formulas are not set`);
  await Promise.all(all("img").map((image) => image.decode().catch(() => null)));
  const empty = all("img").filter((image) => !image.naturalWidth).length;
  if (empty) found.push(`${empty} pictures are not shown`);
  return found.map((what) => `${page} at ${width} px: ${what}`);
}
(async () => {
  const found = [];
  for (const page of PAGES) for (const width of WIDTHS) found.push(...await load(page, width));
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>
"""


def browser() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Handler(SimpleHTTPRequestHandler):
    """The files of the site, the probe, and the place that it sends its findings to."""

    def do_GET(self) -> None:
        if self.path != "/probe":
            return super().do_GET()
        body = self.server.probe.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.found = json.loads(body)
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def log_message(self, *_: object) -> None:
        """Nothing: a line for each file would hide the findings."""


def problems(out: Path, seconds: float = 300) -> list[str]:
    """Faults in the layout of a site.

    Raises:
        TimeoutError: the browser did not answer.
    """
    pages = sorted(f"/{path.relative_to(out).as_posix()}" for path in out.rglob("*.html"))
    # The source of a module is code in a box, like all other code.
    pages = [page for page in pages if not page.startswith("/_modules/")]
    probe = PROBE.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(out))) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        server.probe, server.done, server.found = probe, threading.Event(), []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_port}/probe"
        process = subprocess.Popen(
            [str(browser()), *options, "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not server.done.wait(seconds):
                raise TimeoutError(f"{browser()} did not answer within {seconds:.0f} s")
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
        return list(server.found)
