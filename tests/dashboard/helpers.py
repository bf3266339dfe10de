"""What the cases share: a window that is signed in, going to a page, and that nothing went wrong meanwhile."""

import json
import os

from chromium import Failed
from world import PROJECT

SCREENSHOTS = os.environ.get("SCREENSHOTS", os.path.join(PROJECT, "target/dashboard"))
AXE = os.environ.get("AXE", os.path.join(PROJECT, ".cache/axe-core/axe.min.js"))
ROLLOUT = "#/rollouts/operations/tills"
PAGES = {
    "overview": "#/",
    "nodes": "#/nodes",
    "node": "#/nodes/store-0000-till-03",
    "rollouts": "#/rollouts",
    "rollout": ROLLOUT,
    "quarantine": "#/quarantine",
    "compliance": "#/compliance",
    "audit": "#/audit",
    "access": "#/access",
    "nowhere": "#/no/such/page",
}
ELEMENTS = (
    9000  # of a page of 100 nodes or of an overview; a table of all 10,000 would have a hundred times as many
)
CASES = []


def case(function):
    CASES.append(function)
    return function


def must(holds, what):
    if not holds:
        raise Failed(what)


def js(value):
    return json.dumps(value)


def sign_in(browser, world, token=None, **window):
    """A new window, signed in."""
    page = browser.page(**window)
    page.expected.append(
        "/api/v1/session"
    )  # 401 before the login is how the page learns that nobody is signed in
    page.open(world.url + "/")
    page.until("document.activeElement?.id === 'token'", "the login has the focus")
    page.type(token or world.admin)
    page.key("Enter")
    page.until("document.querySelector('h1')?.textContent === 'Fleet'", "the overview after the login")
    page.until("document.querySelector('#live-word').textContent === 'Live'", "events come")
    return page


def go(page, where):
    """To an address of the dashboard, until it is shown."""
    page.eval(f"location.hash = {js(where)}")
    page.until(
        "document.querySelector('#page h1') && !document.querySelector('#page').hasAttribute('aria-busy') && document.querySelector('#page').dataset.shown === location.hash",
        f"{where} is shown",
    )


def clean(page):
    """Nothing went wrong so far, nobody was asked but our server, and no text became more than text."""
    violations = page.eval("window.violations")
    must(not violations, f"the policy was violated: {violations}")
    must(not page.problems, f"the console says: {page.problems}")
    must(not page.dialogs, f"a script opened a dialog: {page.dialogs}")
    must(page.eval("window.hit === undefined"), f"a hostile text was run: {page.eval('window.hit')}")


def rows(page):
    return page.eval("[...document.querySelectorAll('#page tbody th a.name')].map((a) => a.textContent)")


NOTES = []


def note(text):
    """A figure that belongs to the case's line."""
    NOTES.append(text)
