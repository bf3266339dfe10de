"""The dashboard in a real Chromium, before a real prestage-fleet with 10,000 nodes. One line for each case, and a count.

    tests/dashboard/run [WORD...]    only the cases whose names contain one of the words

Pictures of every page go to the folder that SCREENSHOTS names (target/dashboard otherwise), to be looked at by a person.
"""

import json
import os
import re
import sys
import time
import traceback
import urllib.parse

from chromium import Chromium, Failed
from world import HOSTILE, NEW, PROJECT, World, step, wire

SCREENSHOTS = os.environ.get("SCREENSHOTS", os.path.join(PROJECT, "target/dashboard"))
AXE = os.environ.get("AXE", os.path.join(PROJECT, ".cache/axe-core/axe.min.js"))
ROLLOUT = "#/rollouts/operations/tills"
PAGES = {"overview": "#/", "nodes": "#/nodes", "node": "#/nodes/store-0000-till-03", "rollouts": "#/rollouts", "rollout": ROLLOUT,
         "quarantine": "#/quarantine", "compliance": "#/compliance", "audit": "#/audit", "access": "#/access", "nowhere": "#/no/such/page"}
ELEMENTS = 9000  # of a page of 100 nodes or of an overview; a table of all 10,000 would have a hundred times as many
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
    page.expected.append("/api/v1/session")  # 401 before the login is how the page learns that nobody is signed in
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
    page.until("document.querySelector('#page h1') && !document.querySelector('#page').hasAttribute('aria-busy') && document.querySelector('#page').dataset.shown === location.hash", f"{where} is shown")


def clean(page):
    """Nothing went wrong so far, nobody was asked but our server, and no text became more than text."""
    violations = page.eval("window.violations")
    must(not violations, f"the policy was violated: {violations}")
    must(not page.problems, f"the console says: {page.problems}")
    must(not page.dialogs, f"a script opened a dialog: {page.dialogs}")
    must(page.eval("window.hit === undefined"), f"a hostile text was run: {page.eval('window.hit')}")


def rows(page):
    return page.eval("[...document.querySelectorAll('#page tbody th a.name')].map((a) => a.textContent)")


# --------------------------------------------------------------------------------------------------------------------


@case
def nobody_sees_anything_before_the_login(browser, world):
    page = browser.page()
    page.expected.append("/api/v1/session")
    page.open(world.url + "/#/nodes?state=failed")
    page.until("document.activeElement?.id === 'token'", "the login has the focus")
    must(page.eval("document.querySelector('#nav').hidden && document.querySelector('#top').hidden"), "the frame is shown")
    page.type("pf_wrong")
    page.key("Enter")
    page.until("document.querySelector('[role=alert]:not([hidden])')?.textContent.includes('does not count')", "a wrong token is refused in words")
    page.type(world.admin)
    page.key("Enter")
    page.until("document.querySelector('h1')?.textContent === 'Nodes'", "after the login one is where one wanted to go")
    must(page.eval("document.cookie") == "", "a script can read the cookie")
    must(world.admin not in page.eval("JSON.stringify([{...localStorage}, {...sessionStorage}])"), "the token is kept in the browser")
    clean(page)
    page.close()


@case
def the_policy_of_the_server_forbids_what_is_not_ours(browser, world):
    page = browser.page()
    page.expected.append("/api/v1/session")
    page.open(world.url + "/")
    page.until("document.querySelector('#token')")
    policy = page.eval("fetch('./').then((answer) => answer.headers.get('content-security-policy') ?? '')")
    must("default-src 'self'" in policy and "unsafe" not in policy, f"the policy is {policy!r}")
    # That violations would be seen at all.
    page.eval("(() => { const img = document.createElement('img'); img.src = 'http://127.0.0.2:1/x.png'; document.body.append(img); })()")
    page.until("window.violations.length > 0", "a foreign picture is a violation that this test sees")
    page.close()


@case
def every_page_renders_without_an_error_at_every_width(browser, world):
    page = sign_in(browser, world)
    titles = set()
    for width in (1400, 768, 320):
        page.size(width, 800, phone=width < 500)
        for name, where in PAGES.items():
            go(page, where)
            must(page.eval("document.querySelectorAll('h1').length") == 1, f"{name}: not one h1")
            must(page.eval("['header', 'nav', 'main'].every((tag) => document.querySelector(tag))"), f"{name}: landmarks are missing")
            over = page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            must(over <= 0, f"{name} is {over} px too wide at {width} px")
            elements = page.eval("document.querySelectorAll('*').length")
            must(elements < ELEMENTS, f"{name} has {elements} elements")
            must(not re.search(r"undefined|NaN|\[object", page.eval("document.querySelector('main').innerText")), f"{name} shows an undefined: {page.eval('document.querySelector(`main`).innerText')[:3000]}")
            if width == 1400:
                titles.add(page.eval("document.title"))
    must(len(titles) == len(PAGES), f"titles are not all different: {titles}")
    foreign = [url for _, url, _ in page.requests if not url.startswith(world.url) and not url.startswith(("about:", "blob:", "data:"))]
    must(not foreign, f"it asked somebody else: {foreign}")
    clean(page)
    page.close()


@case
def the_overview_says_what_the_api_says(browser, world):
    page = sign_in(browser, world)
    summary = world.api("GET", "summary", token=world.admin)
    must(summary["total"] == world.count, f"the server counts {summary['total']} nodes of {world.count}")
    page.until(f"document.querySelector('.page-head').textContent.includes('{world.count:,} nodes')")
    for state, n in summary["states"].items():
        if n:
            shown = page.eval(f"document.querySelector('tr[data-key={js(state)}] .strong')?.textContent")
            must(shown == f"{n:,}", f"{state}: the API says {n}, the page {shown}")
    must(page.eval("[...document.querySelectorAll('.attention-title')].some((e) => e.textContent.includes('failed to install'))"), "failed nodes are not on top")
    must(page.eval("document.querySelector('.attention').compareDocumentPosition(document.querySelector('.columns')) & Node.DOCUMENT_POSITION_FOLLOWING"), "what is wrong is not first")
    must(page.eval("document.querySelectorAll('#states-summary').length === 1 && document.querySelectorAll('.chart-bar').length > 20"), "there is no chart of the states")
    must(page.eval("[...document.querySelectorAll('.chart')].every((c) => document.getElementById(c.getAttribute('aria-labelledby')).textContent.length > 20 && c.closest('figure').querySelector('table'))"), "a chart has no words or no table")
    clean(page)
    page.close()


@case
def what_nodes_and_people_write_stays_text(browser, world):
    # Names are refused at the door; everything else is taken as it is, and shown as it is.
    token = world.api("POST", "tokens", {"kind": "operator", "name": HOSTILE[:100], "role": "viewer"}, world.admin)
    world.api("POST", "rollouts/operations/tills/pause", {"reason": HOSTILE}, world.admin)
    world.api("POST", "rollouts/operations/tills/resume", {"reason": HOSTILE}, world.admin)
    must(token["token"], "no token")
    page = sign_in(browser, world)
    seen = {}
    hostile_site = "#/nodes?" + urllib.parse.urlencode({"site": HOSTILE})
    for name, where in {**PAGES, "filtered": hostile_site, "searched": "#/nodes?" + urllib.parse.urlencode({"q": HOSTILE[:200]}), "strange": "#/nodes/" + urllib.parse.quote(HOSTILE, safe="")}.items():
        go(page, where)
        page.eval("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        seen[name] = page.eval(f"document.querySelector('#page').textContent.split({js(HOSTILE[:60])}).length - 1")
        alien = page.eval("document.querySelectorAll('#page img, #page script, #page iframe, #page object, #page [onload], #page [onerror], #page a[href^=\"javascript:\"]').length")
        must(alien == 0, f"{name}: {alien} elements were made of text")
    for name in ("node", "audit", "access", "quarantine", "filtered"):
        must(seen[name] > 0, f"{name} does not show the hostile text at all, so this proves nothing: {seen}")
    # Markup in the address of the page itself.
    go(page, "#/rollouts/" + urllib.parse.quote(HOSTILE, safe="") + "/x")
    page.problems = [one for one in page.problems if "404" not in one]
    clean(page)
    page.close()


@case
def the_source_never_parses_html_and_loads_nothing_foreign(browser, world):
    folder = os.path.join(PROJECT, "fleet/dashboard")
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\(|new Function|setTimeout\([\"'`]|srcdoc\s*=|https?://(?!www\.w3\.org/)|\bon\w+=|<style|style=")
    for base, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(base, name), encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    must(not forbidden.search(line), f"{name}:{number}: {line.strip()}")


@case
def a_rollout_is_halted_with_the_keyboard_alone(browser, world):
    page = sign_in(browser, world)
    # Back to the very top, where the first stop is the link that skips the frame.
    page.tab_to("#skip", shift=True)
    must(page.eval("[...document.querySelectorAll('a, button, input')][0].id") == "skip" and page.eval("document.activeElement.getBoundingClientRect().top") >= 0, "the skip link is not first, or not to be seen")
    page.key("Enter")
    must("h1" in page.focused(), f"the skip link leads to {page.focused()}")
    page.key("/")
    must(page.focused().startswith("input#q"), f"/ leads to {page.focused()}")
    page.tab_to("#nav a[href='#/rollouts']")
    page.key("Enter")
    page.until("document.querySelector('h1')?.textContent === 'Rollouts'")
    must(page.focused().startswith("h1"), f"after going to another page the focus is on {page.focused()}")
    page.tab_to("#page a[href='#/rollouts/operations/tills']")
    page.key("Enter")
    page.until("document.querySelector('#act-halt')")
    page.tab_to("#act-halt")
    page.key("Enter")
    page.until("document.querySelector('dialog[open]')")
    must(page.focused().startswith("textarea#dialog-reason"), f"the dialog begins at {page.focused()}")
    words = page.eval("document.querySelector('#dialog-body').innerText")
    must(re.search(r"[\d,]+ nodes? that ha(s|ve) not begun will not begin", words) and "never interrupted" in words, f"it does not say what it will do: {words}")
    for _ in range(12):
        page.key("Tab")
        must(page.eval("document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))"), f"the focus left the dialog for {page.focused()}")
    page.key("Escape")
    page.until("!document.querySelector('dialog')")
    must(page.focused().startswith("button#act-halt"), f"the focus went back to {page.focused()}")
    page.key("Enter")
    page.until("document.querySelector('dialog[open]')")
    page.tab_to("dialog button[type=submit]")
    page.key("Enter")
    page.until("document.querySelector('dialog [role=alert]:not([hidden])')?.textContent.includes('why')", "without a reason it is refused")
    must(page.focused().startswith("textarea"), "the focus is not where the reason is missing")
    must(world.api("GET", "rollouts/operations/tills", token=world.admin)["state"] == "running", "it was halted without a reason")
    page.type("openssl does not configure on rocky")
    page.screenshot(f"{SCREENSHOTS}/dialog-light.png", whole=False)
    page.tab_to("dialog button[type=submit]")
    page.key("Enter")
    page.until("!document.querySelector('dialog')", "the dialog closes when it is done")
    page.until("document.querySelector('#announcements').textContent.length > 3", "it is announced")
    page.until("document.querySelector('.page-head').textContent.includes('Halted')", "the page says so")
    rollout = world.api("GET", "rollouts/operations/tills", token=world.admin)
    must(rollout["state"] == "halted", f"the API says {rollout['state']}")
    audit = world.api("GET", "audit?limit=5", token=world.admin)["items"]
    must(any(one["reason"] == "openssl does not configure on rocky" and one["action"].endswith("halt") for one in audit), f"the audit log has not: {audit}")
    must(page.eval("document.activeElement !== document.body"), "the focus is lost")
    go(page, "#/")
    must(page.eval("document.querySelector('.attention').innerText.includes('operations/tills is halted')"), "the overview does not say it")
    # And on again.
    go(page, ROLLOUT)
    page.tab_to("#act-resume")
    page.key("Enter")
    page.until("document.querySelector('dialog[open]')")
    page.type("openssl is mended")
    page.tab_to("dialog button[type=submit]")
    page.key("Enter")
    page.until("document.querySelector('.page-head').textContent.includes('Running')", "it runs again")
    clean(page)
    page.close()


@case
def what_the_server_refuses_is_said_in_the_dialog(browser, world):
    page = sign_in(browser, world)
    go(page, "#/access")
    page.tab_to("#new-operator")
    page.key("Enter")
    page.until("document.querySelector('dialog[open]')")
    page.expected.append("/api/v1/tokens")
    # The session ends behind the page's back.
    page.type("rosa")
    page.eval("fetch('api/v1/session', {method: 'DELETE', headers: {'X-Prestage-Csrf': '1'}}).then(() => 1)")
    page.tab_to("dialog button[type=submit]")
    page.key("Enter")
    page.until("document.querySelector('dialog [role=alert]:not([hidden])')?.textContent.includes('It was not done') || document.querySelector('#token')", "it says that it was not done, or asks to sign in")
    page.close()


@case
def a_viewer_is_not_offered_what_he_may_not_do(browser, world):
    page = sign_in(browser, world, world.token("viewer"))
    go(page, ROLLOUT)
    must(page.eval("document.querySelectorAll('.controls button').length") == 0, "a viewer sees the buttons")
    must("needs the role operator" in page.eval("document.querySelector('#page').innerText"), "it is not said why")
    must(not page.eval("Boolean(document.querySelector('#nav a[href=\"#/access\"]'))"), "a viewer sees Access")
    go(page, "#/access")
    must("You may not see this" in page.eval("document.querySelector('#page').innerText"), "Access is shown to a viewer")
    clean(page)
    page.close()


@case
def the_address_holds_the_view_and_the_server_does_the_work(browser, world):
    page = sign_in(browser, world)
    go(page, "#/nodes")
    page.until("document.querySelectorAll('#page tbody tr').length === 100")
    page.eval("(() => { const s = document.querySelector('#f-state'); s.value = 'failed'; s.dispatchEvent(new Event('change', {bubbles: true})); })()")
    page.until("location.hash.includes('state=failed') && [...document.querySelectorAll('#page tbody .badge')].every((b) => b.textContent === 'Failed')", "filtered")
    total = world.api("GET", "nodes?state=failed&limit=1", token=world.admin)["total"]
    must(page.eval("document.querySelector('.page-head').textContent").startswith(f"Nodes{total:,} of "), "the count is not that of the API")
    page.eval("[...document.querySelectorAll('thead a.sort')].find((a) => a.textContent.startsWith('Failing since')).click()")
    page.until("document.querySelector('[aria-sort=ascending]')?.textContent.startsWith('Failing since')", "sorted")
    page.until("location.hash.includes('sort=failingSince')")
    shown, address = rows(page), page.eval("location.href")
    wanted = [row["node"] for row in world.api("GET", "nodes?state=failed&sort=failingSince&limit=100", token=world.admin)["items"]]
    must(shown == wanted, f"not in the order of the API: {shown[:5]} {wanted[:5]}")
    # Somebody else opens the address.
    other = sign_in(browser, world)
    other.open(address)
    other.call("Page.reload")
    other.until("document.querySelector('[aria-sort=ascending]')?.textContent.startsWith('Failing since')")
    must(rows(other) == shown, "another window shows another view of the same address")
    other.close()
    page.eval("history.back()")
    page.until("!location.hash.includes('sort=') && document.querySelector('[aria-sort=ascending]')?.textContent.startsWith('Node')", "back goes back")
    # Pages: each node once.
    go(page, "#/nodes?limit=50")
    seen = rows(page)
    for start in (51, 101):
        page.eval("[...document.querySelectorAll('.pager a')].find((a) => a.textContent === 'Next').click()")
        page.until(f"document.querySelector('.pager').textContent.startsWith('{start} to ')")
        seen += rows(page)
    must(len(set(seen)) == 150, f"{len(set(seen))} different nodes on three pages of 50")
    page.eval("[...document.querySelectorAll('.pager a')].find((a) => a.textContent === 'Previous').click()")
    page.until("document.querySelector('.pager').textContent.startsWith('51 to ')", "back to the second page")
    must(rows(page) == seen[50:100], "the second page is another one on the way back")
    # Search by "/".
    page.eval("document.activeElement.blur()")
    page.key("/")
    page.type("store-0042-till-07")
    page.key("Enter")
    page.until("document.querySelectorAll('#page tbody tr').length === 1")
    must(rows(page) == ["store-0042-till-07"], "the search found something else")
    clean(page)
    page.close()


@case
def what_a_node_says_is_shown_at_once_and_disturbs_nobody(browser, world):
    page = sign_in(browser, world)
    node = world.nodes[40]
    go(page, f"#/nodes/{node.name}")
    page.eval("document.querySelectorAll('#page details').forEach((one) => { one.open = true; })")
    page.tab_to("#revoke")
    opened = page.eval("document.querySelectorAll('#page details[open]').length")
    now = int(time.time()) + 5
    text = f"said at {now}"
    world.api("POST", "reports", {"documents": [node.report(now, "install", "rolledBack", 5, text, world.bundles[NEW], transaction="live"),
                                                node.status(now, "failed", text, install=step("install", now, "rolledBack", 5, text))]})
    page.until(f"document.querySelector('#page').textContent.includes({js(text)}) && document.querySelector('.page-head .badge').textContent === 'Failed'", "it is shown without a reload", 10)
    must("button#revoke" in page.focused(), f"the focus went to {page.focused()}")
    must(page.eval("document.querySelectorAll('#page details[open]').length") >= opened, "what was open was closed")
    clean(page)
    page.close()


@case
def a_storm_of_reports_is_few_requests(browser, world):
    page = sign_in(browser, world)
    time.sleep(0)
    began, before = time.monotonic(), len(page.requests)
    said = 0
    while time.monotonic() - began < 9:
        at = int(time.time()) + 20 + said
        batch = [node.status(at, "staged", f"storm {said}") for node in world.nodes[1000 + said % 50 * 100:][:100] if node.name != "x"]
        world.api("POST", "reports", {"documents": batch})
        said += len(batch)
    took = time.monotonic() - began
    asked = [url for method, url, at in page.requests[before:] if "/summary" in url and "history" not in url and at > began]
    must(said > 500, f"only {said} documents were sent")
    must(1 <= len(asked) <= took / 3 + 2, f"{said} documents in {took:.0f} s made {len(asked)} requests")
    note(f"{said} documents in {took:.0f} s: {len(asked)} refreshes")
    clean(page)
    page.close()


@case
def it_does_not_lie_while_the_server_is_away(browser, world):
    page = sign_in(browser, world)
    must(page.eval("document.querySelector('#live-word').textContent") == "Live", "it is not live to begin with")
    numbers = page.eval("document.querySelector('tr[data-key=upToDate]').textContent")
    page.expected.append(world.url)
    world.stop(9)
    page.until("document.querySelector('#live-word').textContent.startsWith('Reconnecting')", "it says that it is reconnecting", 10)
    page.until("document.querySelector('#live-word').textContent === 'Stale'", "it says that it is stale", 60)
    banner = page.until("document.querySelector('.banner')?.innerText", "a banner says so")
    must("does not answer" in banner and "What you see is from" in banner, f"the banner says {banner!r}")
    must(page.eval("document.querySelector('tr[data-key=upToDate]').textContent") == numbers, "what was known was thrown away")
    page.screenshot(f"{SCREENSHOTS}/stale-light.png", whole=False)
    # Another page cannot be read, and says so instead of showing something.
    page.eval(f"location.hash = {js(ROLLOUT)}")
    page.until("document.querySelector('#page h1')?.textContent.includes('does not answer')", "a page that cannot be read says so")
    world.start()
    page.until("document.querySelector('#live-word').textContent === 'Live'", "it comes back by itself", 40)
    page.until("!document.querySelector('.banner')", "the banner goes")
    page.eval("[...document.querySelectorAll('#page button')].find((b) => b.textContent === 'Try again')?.click()")
    page.until("document.querySelector('#page h1')?.textContent === 'operations/tills'", "and the page is there")
    must(page.eval("window.violations.length") == 0, "the policy was violated")
    page.close()


@case
def times_are_the_viewers_with_utc_on_hover_and_ages_go_on(browser, world):
    page = sign_in(browser, world)
    shown = page.eval("(() => { const t = document.querySelector('.page-head time'); return [t.dateTime, t.textContent, t.title]; })()")
    hour = (int(shown[0][11:13]) + 1) % 24  # the browser is in Berlin, and it is winter there: tests run in November's data
    offset = page.eval("-new Date().getTimezoneOffset() / 60")
    must(offset in (1, 2), f"the browser's zone is {offset}")
    must(f" {(int(shown[0][11:13]) + offset) % 24:02}:" in shown[1], f"{shown}: not in the viewer's zone {hour}")
    must(shown[2].endswith("UTC") and shown[0][11:16] in shown[2], f"no UTC on hover: {shown}")
    page.eval("(() => { const s = document.querySelector('#set-zone'); s.value = 'utc'; s.dispatchEvent(new Event('change', {bubbles: true})); })()")
    page.until("document.querySelector('.page-head time').textContent.endsWith('UTC')", "all times in UTC if asked")
    moved = page.eval("""import('./js/time.js').then((time) => {
        const element = time.age(new Date(Date.now() - 5 * 60000).toISOString());
        document.querySelector('main').append(element);
        const before = element.textContent;
        element.dateTime = new Date(Date.now() - 65 * 60000).toISOString();
        time.rewriteTimes();
        return [before, element.textContent]; })""")
    must(moved == ["5 min ago", "1 h ago"], f"ages: {moved}")
    # A viewer's clock that is an hour off does not make fresh nodes old.
    skewed = page.eval("""import('./js/time.js').then((time) => {
        time.heardServerTime(new Date(Date.now() + 3600000).toUTCString());
        const text = time.age(new Date(Date.now() + 3600000 - 60000).toISOString()).textContent;
        time.heardServerTime(new Date().toUTCString());
        return text; })""")
    must(skewed == "1 min ago", f"with a clock that is an hour behind, a minute is {skewed}")
    page.close()


@case
def the_theme_follows_the_system_and_the_choice(browser, world):
    page = sign_in(browser, world, dark=True)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    must(page.eval(ground) == "rgb(17, 21, 26)", f"dark is {page.eval(ground)}")
    page.eval("(() => { const s = document.querySelector('#set-theme'); s.value = 'light'; s.dispatchEvent(new Event('change', {bubbles: true})); })()")
    must(page.eval(ground) == "rgb(244, 245, 247)", f"light is {page.eval(ground)}")
    page.call("Page.reload")
    page.until("document.querySelector('h1')?.textContent === 'Fleet'")
    must(page.eval(ground) == "rgb(244, 245, 247)", "the choice is forgotten")
    page.media(dark=False, reduced_motion=False)
    must(page.eval("parseFloat(getComputedStyle(document.querySelector('.split-part')).transitionDuration) > 0"), "nothing moves for those who do not mind, so the next line proves nothing")
    page.media(dark=False, reduced_motion=True)
    must(page.eval("[...document.querySelectorAll('*')].every((e) => parseFloat(getComputedStyle(e).transitionDuration) === 0 && getComputedStyle(e).animationName === 'none')"), "something moves for those who asked for stillness")
    page.close()


@case
def the_past_is_asked_and_taken_away_as_a_file(browser, world):
    page = sign_in(browser, world)
    at = wire(time.time() - 10 * 86400)
    go(page, "#/compliance?" + urllib.parse.urlencode({"at": at, "label": "region=north"}))
    wanted = world.api("GET", "compliance?" + urllib.parse.urlencode({"at": at, "label": "region=north", "limit": 100}), token=world.admin)
    must(rows(page) == [row["node"] for row in wanted["items"]], "not what the API says")
    must(at.replace("T", " ").replace("Z", " UTC") in page.eval("document.querySelector('#c-at-utc').textContent"), "the time is not said in UTC")
    for name in ("CSV", "NDJSON"):
        lines = page.eval(f"fetch([...document.querySelectorAll('.exports a')].find((a) => a.textContent === '{name}').href).then((answer) => answer.text()).then((text) => text.trim().split('\\n').length)")
        must(lines >= world.count / 2, f"{name} has {lines} lines")
    clean(page)
    page.close()


@case
def a_secret_is_shown_once(browser, world):
    page = sign_in(browser, world)
    go(page, "#/access")
    page.tab_to("#new-enrollment")
    page.key("Enter")
    page.until("document.querySelector('dialog[open]')")
    page.type("store 12")
    page.tab_to("dialog button[type=submit]")
    page.key("Enter")
    secret = page.until("document.querySelector('#t-secret')?.value", "the secret is shown")
    must(len(secret) > 20, f"the secret is {secret!r}")
    page.key("Escape")
    page.until("!document.querySelector('dialog') && document.querySelector('#page').textContent.includes('store 12')", "it is in the list")
    must(secret not in page.eval("document.documentElement.outerHTML"), "the secret is still there")
    must(page.focused().startswith(("button#new-enrollment", "h1")), f"the focus is on {page.focused()}")
    clean(page)
    page.close()


@case
def numbers_and_words_are_right(browser, world):
    page = browser.page()
    page.expected.append("/api/v1/session")
    page.open(world.url + "/")
    page.until("document.querySelector('#token')")
    with open(os.path.join(os.path.dirname(__file__), "words.js"), encoding="utf-8") as file:
        wrong = page.eval(f"(async () => {{ {file.read()} }})()")
    must(wrong == [], "; ".join(wrong[:5]) if wrong else "nothing was looked at")
    page.close()


@case
def axe_finds_nothing(browser, world):
    with open(AXE, encoding="utf-8") as file:
        axe = file.read()
    looked, wrong = 0, []
    for window in ({}, {"dark": True}, {"width": 320, "height": 700, "phone": True}):
        page = sign_in(browser, world, **window)
        for name, where in {**PAGES, "dialog": ROLLOUT}.items():
            go(page, where)
            page.eval(f"window.axe ? 1 : (() => {{ {axe} }})() || 1")
            if name == "dialog":
                page.eval("document.querySelector('.controls button').click()")
                page.until("document.querySelector('dialog[open]')")
            found = page.eval("""axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations']})
                .then((result) => ({looked: result.passes.length, wrong: result.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target} ${node.any[0]?.message ?? ''}`).join(' | ')}`)}))""")
            wrong += [f"{name} {window}: {one}" for one in found["wrong"]]
            must(found["looked"] > 10, f"{name}: only {found['looked']} rules had something to look at")
            looked += found["looked"]
        page.close()
    must(not wrong, "\n        ".join(wrong))
    note(f"{looked} rules passed on {3 * (len(PAGES) + 1)} views")


@case
def pictures_of_every_page(browser, world):
    for look, window in {"light": {}, "dark": {"dark": True}, "phone": {"width": 360, "height": 740, "phone": True}}.items():
        page = sign_in(browser, world, **window)
        for name, where in {**PAGES, "nodes-wrong": "#/nodes?state=needsPerson,failed,quarantined,silent"}.items():
            go(page, where)
            page.screenshot(f"{SCREENSHOTS}/{name}-{look}.png", most=1500 if look == "phone" else 3000)
        page.close()
    note(f"in {SCREENSHOTS}")


@case
def first_views_are_quick(browser, world):
    """No limit, which belongs into no test: the figures, to be looked at."""
    page = sign_in(browser, world)
    for name, where in (("node table", "#/nodes"), ("overview", "#/"), ("rollout", ROLLOUT)):
        took = page.eval(f"""(async () => {{
            const begin = performance.now();
            const old = document.querySelector('#page h1');
            location.hash = {js(where)};
            const wanted = {js({'node table': 'Nodes', 'overview': 'Fleet', 'rollout': 'operations/tills'}[name])};
            while (document.querySelector('#page h1')?.textContent !== wanted || document.querySelector('#page').hasAttribute('aria-busy')) await new Promise(requestAnimationFrame);
            return Math.round(performance.now() - begin); }})()""")
        note(f"{name}: {took} ms from the click to the rows, {page.eval('document.querySelectorAll(`*`).length')} elements")
    page.close()


notes = []


def note(text):
    notes.append(text)


def main():
    wanted = sys.argv[1:]
    chosen = [one for one in CASES if not wanted or any(word in one.__name__ for word in wanted)]
    os.makedirs(SCREENSHOTS, exist_ok=True)
    failed = 0
    began = time.monotonic()
    with World(int(os.environ.get("NODES", "10000"))) as world:
        print(f"{world.count} nodes enrolled and reported in {time.monotonic() - began:.0f} s", flush=True)
        with Chromium() as browser:
            for one in chosen:
                name, start = one.__name__.replace("_", " "), time.monotonic()
                try:
                    one(browser, world)
                    print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
                except Exception as error:  # noqa: BLE001 whatever it is, the others run
                    failed += 1
                    print(f"FAILED  {name}: {error if isinstance(error, Failed) else traceback.format_exc()}", flush=True)
                for text in notes:
                    print(f"          {text}", flush=True)
                notes.clear()
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
