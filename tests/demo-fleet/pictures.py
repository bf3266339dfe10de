"""Pictures of the dashboard: pictures.py URL TOKEN FOLDER NAME=ROUTE...

Signs in as an operator does, goes to each route (#/nodes, …) and writes FOLDER/NAME.png. What a page does wrong meanwhile
(exceptions, errors on the console, requests to other hosts) fails the run.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../dashboard"))
from chromium import Chromium, Failed  # noqa: E402

url, token, folder, *wanted = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
try:
    with Chromium() as browser:
        page = browser.page()
        page.expected.append("401")  # who it is, asked before anybody has signed in
        page.open(f"{url}/")
        page.until("document.readyState === 'complete'")
        status = page.eval(
            "fetch('/api/v1/session', {method: 'POST', headers: {'Content-Type': 'application/json'},"
            f" body: JSON.stringify({{token: {json.dumps(token)}}})}}).then((answer) => answer.status)"
        )
        if status != 200:
            raise Failed(f"signing in was answered with {status}")
        for one in wanted:
            name, route = one.split("=", 1)
            page.open(f"{url}/?{name}#{route}")
            page.until("document.readyState === 'complete' && document.querySelector('h1')")
            # What is loaded replaces what says so.
            page.until("!document.querySelector('[aria-busy=true]')")
            page.screenshot(os.path.join(folder, f"{name}.png"))
        others = [to for _, to, _ in page.requests if not to.startswith((url, "data:", "about:", "blob:"))]
        if others:
            page.problems.append(f"requests to {others}")
        if page.problems:
            raise Failed("; ".join(page.problems))
except Failed as problem:
    sys.exit(f"pictures: {problem}")
