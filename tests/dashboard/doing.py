"""What happens: signing in, halting with the keyboard alone, news while one looks, and a server that is away."""

import re
import time
import urllib.parse

from helpers import ROLLOUT, SCREENSHOTS, case, clean, go, js, must, note, rows, sign_in
from nodes import NEW, step, wire


@case
def nobody_sees_anything_before_the_login(browser, world):
    page = browser.page()
    page.expected.append("/api/v1/session")
    page.open(world.url + "/#/nodes?state=failed")
    page.until("document.activeElement?.id === 'token'", "the login has the focus")
    must(
        page.eval("document.querySelector('#nav').hidden && document.querySelector('#top').hidden"),
        "the frame is shown",
    )
    page.type("pf_wrong")
    page.key("Enter")
    page.until(
        "document.querySelector('[role=alert]:not([hidden])')?.textContent.includes('does not count')",
        "a wrong token is refused in words",
    )
    page.type(world.admin)
    page.key("Enter")
    page.until(
        "document.querySelector('h1')?.textContent === 'Nodes'",
        "after the login one is where one wanted to go",
    )
    must(page.eval("document.cookie") == "", "a script can read the cookie")
    must(
        world.admin not in page.eval("JSON.stringify([{...localStorage}, {...sessionStorage}])"),
        "the token is kept in the browser",
    )
    clean(page)
    page.close()


@case
def a_rollout_is_halted_with_the_keyboard_alone(browser, world):
    page = sign_in(browser, world)
    # Back to the very top, where the first stop is the link that skips the frame.
    page.tab_to("#skip", shift=True)
    must(
        page.eval("[...document.querySelectorAll('a, button, input')][0].id") == "skip"
        and page.eval("document.activeElement.getBoundingClientRect().top") >= 0,
        "the skip link is not first, or not to be seen",
    )
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
    must(
        re.search(r"[\d,]+ nodes? that ha(s|ve) not begun will not begin", words)
        and ("never interrupted" in words or "No node is installing now" in words),
        f"it does not say what it will do: {words}",
    )
    for _ in range(12):
        page.key("Tab")
        must(
            page.eval(
                "document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))"
            ),
            f"the focus left the dialog for {page.focused()}",
        )
    page.key("Escape")
    page.until("!document.querySelector('dialog')")
    must(page.focused().startswith("button#act-halt"), f"the focus went back to {page.focused()}")
    page.key("Enter")
    page.until("document.querySelector('dialog[open]')")
    page.tab_to("dialog button[type=submit]")
    page.key("Enter")
    page.until(
        "document.querySelector('dialog [role=alert]:not([hidden])')?.textContent.includes('why')",
        "without a reason it is refused",
    )
    must(page.focused().startswith("textarea"), "the focus is not where the reason is missing")
    must(
        world.api("GET", "rollouts/operations/tills", token=world.admin)["state"] == "running",
        "it was halted without a reason",
    )
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
    must(
        any(
            one["reason"] == "openssl does not configure on rocky" and one["action"].endswith("halt")
            for one in audit
        ),
        f"the audit log has not: {audit}",
    )
    must(page.eval("document.activeElement !== document.body"), "the focus is lost")
    go(page, "#/")
    must(
        page.eval("document.querySelector('.attention').innerText.includes('operations/tills is halted')"),
        "the overview does not say it",
    )
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
    page.until(
        "document.querySelector('dialog [role=alert]:not([hidden])')?.textContent.includes('It was not done') || document.querySelector('#token')",
        "it says that it was not done, or asks to sign in",
    )
    page.close()


@case
def a_viewer_is_not_offered_what_he_may_not_do(browser, world):
    page = sign_in(browser, world, world.token("viewer"))
    go(page, ROLLOUT)
    must(page.eval("document.querySelectorAll('.controls button').length") == 0, "a viewer sees the buttons")
    must(
        "needs the role operator" in page.eval("document.querySelector('#page').innerText"),
        "it is not said why",
    )
    must(
        not page.eval("Boolean(document.querySelector('#nav a[href=\"#/access\"]'))"), "a viewer sees Access"
    )
    go(page, "#/access")
    must(
        "You may not see this" in page.eval("document.querySelector('#page').innerText"),
        "Access is shown to a viewer",
    )
    clean(page)
    page.close()


@case
def the_address_holds_the_view_and_the_server_does_the_work(browser, world):
    page = sign_in(browser, world)
    go(page, "#/nodes")
    page.until("document.querySelectorAll('#page tbody tr').length === 100")
    page.eval(
        "(() => { const s = document.querySelector('#f-state'); s.value = 'failed'; s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.until(
        "location.hash.includes('state=failed') && [...document.querySelectorAll('#page tbody .badge')].every((b) => b.textContent === 'Failed')",
        "filtered",
    )
    total = world.api("GET", "nodes?state=failed&limit=1", token=world.admin)["total"]
    must(
        page.eval("document.querySelector('.page-head').textContent").startswith(f"Nodes{total:,} of "),
        "the count is not that of the API",
    )
    page.eval(
        "[...document.querySelectorAll('thead a.sort')].find((a) => a.textContent.startsWith('Failing since')).click()"
    )
    page.until(
        "document.querySelector('[aria-sort=ascending]')?.textContent.startsWith('Failing since')", "sorted"
    )
    page.until("location.hash.includes('sort=failingSince')")
    shown, address = rows(page), page.eval("location.href")
    wanted = [
        row["node"]
        for row in world.api("GET", "nodes?state=failed&sort=failingSince&limit=100", token=world.admin)[
            "items"
        ]
    ]
    must(shown == wanted, f"not in the order of the API: {shown[:5]} {wanted[:5]}")
    # Somebody else opens the address.
    other = sign_in(browser, world)
    other.open("about:blank")
    other.until("location.href === 'about:blank'")
    other.open(address)
    other.until("document.querySelector('[aria-sort=ascending]')?.textContent.startsWith('Failing since')")
    must(rows(other) == shown, "another window shows another view of the same address")
    other.close()
    page.eval("history.back()")
    page.until(
        "!location.hash.includes('sort=') && document.querySelector('[aria-sort=ascending]')?.textContent.startsWith('Node')",
        "back goes back",
    )
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
    world.api(
        "POST",
        "reports",
        {
            "documents": [
                node.report(now, "install", "rolledBack", 5, text, world.bundles[NEW], transaction="live"),
                node.status(now, "failed", text, install=step("install", now, "rolledBack", 5, text)),
            ]
        },
    )
    page.until(
        f"document.querySelector('#page').textContent.includes({js(text)}) && document.querySelector('.page-head .badge').textContent === 'Failed'",
        "it is shown without a reload",
        10,
    )
    must("button#revoke" in page.focused(), f"the focus went to {page.focused()}")
    must(
        page.eval("document.querySelectorAll('#page details[open]').length") >= opened,
        "what was open was closed",
    )
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
        batch = [
            node.status(at, "staged", f"storm {said}")
            for node in world.nodes[1000 + said % 50 * 100 :][:100]
            if node.name != "x"
        ]
        world.api("POST", "reports", {"documents": batch})
        said += len(batch)
    took = time.monotonic() - began
    asked = [
        url
        for method, url, at in page.requests[before:]
        if "/summary" in url and "history" not in url and at > began
    ]
    must(said > 500, f"only {said} documents were sent")
    must(1 <= len(asked) <= took / 3 + 2, f"{said} documents in {took:.0f} s made {len(asked)} requests")
    note(f"{said} documents in {took:.0f} s: {len(asked)} refreshes")
    clean(page)
    page.close()


@case
def it_does_not_lie_while_the_server_is_away(browser, world):
    page = sign_in(browser, world)
    must(
        page.eval("document.querySelector('#live-word').textContent") == "Live",
        "it is not live to begin with",
    )
    numbers = page.eval("document.querySelector('tr[data-key=upToDate]').textContent")
    page.expected.append(world.url)
    world.stop(9)
    page.until(
        "document.querySelector('#live-word').textContent.startsWith('Reconnecting')",
        "it says that it is reconnecting",
        10,
    )
    page.until("document.querySelector('#live-word').textContent === 'Stale'", "it says that it is stale", 60)
    banner = page.until("document.querySelector('.banner')?.innerText", "a banner says so")
    must("does not answer" in banner and "What you see is from" in banner, f"the banner says {banner!r}")
    must(
        page.eval("document.querySelector('tr[data-key=upToDate]').textContent") == numbers,
        "what was known was thrown away",
    )
    page.screenshot(f"{SCREENSHOTS}/stale-light.png", whole=False)
    drawn = "[...document.querySelectorAll('.banner .icon use, #live .icon use')].map((use) => use.getBBox().width)"
    must(min(page.eval(drawn)) > 0, "a sign that the server is away needs the server")
    # Another page cannot be read, and says so instead of showing something.
    page.eval(f"location.hash = {js(ROLLOUT)}")
    page.until(
        "document.querySelector('#page h1')?.textContent.includes('does not answer')",
        "a page that cannot be read says so",
    )
    world.start()
    page.until("document.querySelector('#live-word').textContent === 'Live'", "it comes back by itself", 40)
    page.until("!document.querySelector('.banner')", "the banner goes")
    page.eval(
        "[...document.querySelectorAll('#page button')].find((b) => b.textContent === 'Try again')?.click()"
    )
    page.until(
        "document.querySelector('#page h1')?.textContent === 'operations/tills'", "and the page is there"
    )
    must(page.eval("window.violations.length") == 0, "the policy was violated")
    page.close()


@case
def the_past_is_asked_and_taken_away_as_a_file(browser, world):
    page = sign_in(browser, world)
    at = wire(time.time() - 10 * 86400)
    go(page, "#/compliance?" + urllib.parse.urlencode({"at": at, "label": "ring=canary"}))
    wanted = world.api(
        "GET",
        "compliance?" + urllib.parse.urlencode({"at": at, "label": "ring=canary", "limit": 100}),
        token=world.admin,
    )
    must(wanted["items"], "the API knows of no node then, so this proves nothing")
    must(rows(page) == [row["node"] for row in wanted["items"]], "not what the API says")
    must(
        at.replace("T", " ").replace("Z", " UTC")
        in page.eval("document.querySelector('#c-at-utc').textContent"),
        "the time is not said in UTC",
    )
    for name, head in (("CSV", 1), ("NDJSON", 0)):
        lines = page.eval(
            f"fetch([...document.querySelectorAll('.exports a')].find((a) => a.textContent === '{name}').href).then((answer) => answer.text()).then((text) => text.trim().split('\\n').length)"
        )
        must(lines == len(wanted["items"]) + head, f"{name} has {lines} lines")
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
    page.until(
        "!document.querySelector('dialog') && document.querySelector('#page').textContent.includes('store 12')",
        "it is in the list",
    )
    must(secret not in page.eval("document.documentElement.outerHTML"), "the secret is still there")
    must(page.focused().startswith(("button#new-enrollment", "h1")), f"the focus is on {page.focused()}")
    clean(page)
    page.close()
