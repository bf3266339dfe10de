"""A real Chromium, headless, driven over its DevTools protocol through a pair of pipes: no port, no driver, no library.

What a page does wrong is collected while it runs: exceptions, console errors, violations of the content security policy,
and requests that left for another host.
"""

import base64
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

PATIENCE = 30  # seconds that anything may take; the machine may be busy


class Failed(Exception):
    """Something that had to hold does not."""


def find_chromium():
    for path in (os.environ.get("CHROMIUM"), "/usr/lib/chromium/chromium", shutil.which("chromium")):
        if path and os.path.exists(path):
            return path
    raise Failed("chromium is not there: make test-dashboard installs it")


class Chromium:
    """The browser. A context manager: at the end it is gone, with its folder."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="prestage-chromium.")
        to_read, self.to_browser = os.pipe()
        self.from_browser, to_write = os.pipe()

        def arrange():
            # High first, so that neither is overwritten by the other.
            high_in, high_out = os.dup(to_read), os.dup(to_write)
            high_in, high_out = os.dup(high_in), os.dup(high_out)
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self.process = subprocess.Popen(
            [
                find_chromium(),
                "--headless=new",
                "--remote-debugging-pipe",
                f"--user-data-dir={self.folder}/profile",
                "--no-sandbox",  # it runs as root, in a test, and sees nothing but our own server
                "--no-first-run",
                "--no-default-browser-check",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-default-apps",
                "--disable-extensions",
                "--disable-sync",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                "--lang=en-GB",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "about:blank",
            ],
            env={**os.environ, "HOME": self.folder, "TZ": "Europe/Berlin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(f"{self.folder}/log", "wb"),
            close_fds=False,
            preexec_fn=arrange,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self.answers, self.pages, self.next, self.lock = {}, {}, 0, threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _listen(self):
        rest = b""
        while True:
            part = os.read(self.from_browser, 1 << 20)
            if not part:
                for waiting in list(self.answers.values()):
                    waiting.put({"error": {"message": "the browser is gone"}})
                return
            *whole, rest = (rest + part).split(b"\0")
            for one in whole:
                message = json.loads(one)
                if "id" in message:
                    self.answers.pop(message["id"]).put(message)
                elif message.get("sessionId") in self.pages:
                    self.pages[message["sessionId"]]._event(message["method"], message["params"])

    def call(self, method, session=None, **params):
        waiting = queue.Queue()
        with self.lock:
            self.next += 1
            number = self.next
            self.answers[number] = waiting
            message = {"id": number, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            data = json.dumps(message).encode() + b"\0"
            while data:
                data = data[os.write(self.to_browser, data) :]
        try:
            answer = waiting.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failed(f"{method}: no answer from the browser") from None
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def page(self, width=1400, height=900, dark=False, phone=False, reduced_motion=True):
        """A new window with no cookies and no storage."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        self.pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "DOM", "Accessibility"):
            page.call(f"{domain}.enable")
        page.size(width, height, phone)
        page.media(dark, reduced_motion)
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        return page


# Violations of the policy as the page itself sees them, and a place where a script that should not run leaves its mark.
WATCH = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


class Page:
    def __init__(self, browser, session, context):
        self.browser, self.session, self.context = browser, session, context
        self.problems, self.requests, self.dialogs, self.expected = [], [], [], []

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def close(self):
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)

    def _event(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(
                "exception: " + details.get("exception", {}).get("description", details["text"])
            )
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.problems.append(
                "console: "
                + " ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"])
            )
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            text = f"{params['entry']['text']} {params['entry'].get('url', '')}"
            if not any(word in text for word in self.expected):
                self.problems.append("log: " + text)
        elif method == "Audits.issueAdded" and "ContentSecurityPolicy" in params["issue"]["code"]:
            self.problems.append("policy: " + json.dumps(params["issue"]["details"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append((params["request"]["method"], params["request"]["url"], time.monotonic()))
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
            threading.Thread(
                target=self.call, args=("Page.handleJavaScriptDialog",), kwargs={"accept": True}, daemon=True
            ).start()

    def size(self, width, height, phone=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def media(self, dark, reduced_motion=True):
        self.call(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else "no-preference"},
            ],
        )

    def open(self, url):
        self.call("Page.navigate", url=url)

    def eval(self, code):
        """The value of an expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise Failed(f"{code[:200]}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def until(self, code, what=None, patience=PATIENCE):
        """Waits until an expression is true, and gives its value."""
        end = time.monotonic() + patience
        while True:
            value = self.eval(f"((value) => value instanceof Node ? true : value)({code})")
            if value:
                return value
            if time.monotonic() > end:
                raise Failed(
                    f"{what or code}: not within {patience} s; the page says: {self.eval('document.body.innerText')[:600]!r}"
                )
            time.sleep(0.05)

    KEYS = {
        "Tab": ("Tab", 9, None),
        "Enter": ("Enter", 13, "\r"),
        "Escape": ("Escape", 27, None),
        "/": ("Slash", 191, "/"),
        " ": ("Space", 32, " "),
        "ArrowDown": ("ArrowDown", 40, None),
    }

    def key(self, key, shift=False):
        code, number, text = self.KEYS[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def focused(self):
        """What has the focus: its tag, id and text."""
        return self.eval(
            "(() => { const e = document.activeElement; return `${e.tagName.toLowerCase()}#${e.id} ${(e.textContent || e.value || '').trim().slice(0, 60)}`; })()"
        )

    def tab_to(self, wanted, most=80, shift=False):
        """Presses Tab until an element matching the selector has the focus."""
        for _ in range(most):
            if self.eval(f"document.activeElement.matches({json.dumps(wanted)})"):
                return
            self.key("Tab", shift)
        raise Failed(f"{wanted} cannot be reached with {most} Tabs; the focus is on {self.focused()}")

    def screenshot(self, path, whole=True, top=0, most=4000):
        params = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            params = {
                "captureBeyondViewport": True,
                "clip": {
                    "x": 0,
                    "y": top,
                    "width": size["width"],
                    "height": min(size["height"] - top, most),
                    "scale": 1,
                },
            }
        data = self.call("Page.captureScreenshot", format="png", **params)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
