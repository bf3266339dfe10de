"""What is shown: every page, at every width, in every light, to everybody, whatever nodes and people write."""

import os
import re
import urllib.parse

from helpers import AXE, ELEMENTS, PAGES, ROLLOUT, SCREENSHOTS, case, clean, go, js, must, note, sign_in
from nodes import HOSTILE
from world import PROJECT


@case
def every_file_of_the_dashboard_is_served_as_what_it_is(browser, world):
    page = browser.page()
    page.expected.append("/api/v1/session")
    page.open(world.url + "/")
    page.until("document.body")
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    folder, looked = os.path.join(PROJECT, "fleet/dashboard"), 0
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(base, name), folder)
            with open(os.path.join(base, name), encoding="utf-8") as file:
                text = file.read()
            status, kind, tag, same = page.eval(
                f"""fetch({js(path)}, {{cache: 'no-store'}}).then(async (answer) => [answer.status,
                    answer.headers.get('content-type'), answer.headers.get('etag'), (await answer.text()) === {js(text)}])"""
            )
            must(status == 200, f"{path} is answered with {status}")
            must(kind.startswith(kinds[os.path.splitext(name)[1]]), f"{path} is served as {kind}")
            must(tag and same, f"{path}: no ETag, or something else is compiled in")
            looked += 1
    must(looked > 25, f"only {looked} files")
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
    page.eval(
        "(() => { const img = document.createElement('img'); img.src = 'http://127.0.0.2:1/x.png'; document.body.append(img); })()"
    )
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
            must(
                page.eval("['header', 'nav', 'main'].every((tag) => document.querySelector(tag))"),
                f"{name}: landmarks are missing",
            )
            over = page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            must(over <= 0, f"{name} is {over} px too wide at {width} px")
            elements = page.eval("document.querySelectorAll('*').length")
            must(elements < ELEMENTS, f"{name} has {elements} elements")
            must(
                not re.search(
                    r"undefined|NaN|\[object", page.eval("document.querySelector('main').innerText")
                ),
                f"{name} shows an undefined: {page.eval('document.querySelector(`main`).innerText')[:3000]}",
            )
            if width == 1400:
                titles.add(page.eval("document.title"))
    must(len(titles) == len(PAGES), f"titles are not all different: {titles}")
    foreign = [
        url
        for _, url, _ in page.requests
        if not url.startswith(world.url) and not url.startswith(("about:", "blob:", "data:"))
    ]
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
    must(
        page.eval(
            "[...document.querySelectorAll('.attention-title')].some((e) => e.textContent.includes('failed to install'))"
        ),
        "failed nodes are not on top",
    )
    must(
        page.eval(
            "document.querySelector('.attention').compareDocumentPosition(document.querySelector('.columns')) & Node.DOCUMENT_POSITION_FOLLOWING"
        ),
        "what is wrong is not first",
    )
    must(
        page.eval(
            "document.querySelectorAll('#states-summary').length === 1 && document.querySelectorAll('.chart-bar').length > 20"
        ),
        "there is no chart of the states",
    )
    must(
        page.eval(
            "[...document.querySelectorAll('.chart')].every((c) => document.getElementById(c.getAttribute('aria-labelledby')).textContent.length > 20 && c.closest('figure').querySelector('table'))"
        ),
        "a chart has no words or no table",
    )
    clean(page)
    page.close()


@case
def what_nodes_and_people_write_stays_text(browser, world):
    # Names are refused at the door; everything else is taken as it is, and shown as it is.
    token = world.api(
        "POST", "tokens", {"kind": "operator", "name": HOSTILE[:100], "role": "viewer"}, world.admin
    )
    world.api("POST", "rollouts/operations/tills/pause", {"reason": HOSTILE}, world.admin)
    world.api("POST", "rollouts/operations/tills/resume", {"reason": HOSTILE}, world.admin)
    must(token["token"], "no token")
    page = sign_in(browser, world)
    seen = {}
    hostile_site = "#/nodes?" + urllib.parse.urlencode({"site": HOSTILE})
    for name, where in {
        **PAGES,
        "filtered": hostile_site,
        "searched": "#/nodes?" + urllib.parse.urlencode({"q": HOSTILE[:200]}),
        "strange": "#/nodes/" + urllib.parse.quote(HOSTILE, safe=""),
    }.items():
        go(page, where)
        page.eval("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        seen[name] = page.eval(
            f"document.querySelector('#page').textContent.split({js(HOSTILE[:60])}).length - 1"
        )
        alien = page.eval(
            "document.querySelectorAll('#page img, #page script, #page iframe, #page object, #page [onload], #page [onerror], #page a[href^=\"javascript:\"]').length"
        )
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
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\(|new Function|setTimeout\([\"'`]|srcdoc\s*=|https?://(?!www\.w3\.org/)|\bon\w+=|<style|style="
    )
    for base, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(base, name), encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    must(not forbidden.search(line), f"{name}:{number}: {line.strip()}")


@case
def times_are_the_viewers_with_utc_on_hover_and_ages_go_on(browser, world):
    page = sign_in(browser, world)
    shown = page.eval(
        "(() => { const t = document.querySelector('.page-head time'); return [t.dateTime, t.textContent, t.title]; })()"
    )
    hour = (
        int(shown[0][11:13]) + 1
    ) % 24  # the browser is in Berlin, and it is winter there: tests run in November's data
    offset = page.eval("-new Date().getTimezoneOffset() / 60")
    must(offset in (1, 2), f"the browser's zone is {offset}")
    must(
        f" {(int(shown[0][11:13]) + offset) % 24:02}:" in shown[1],
        f"{shown}: not in the viewer's zone {hour}",
    )
    must(shown[2].endswith("UTC") and shown[0][11:16] in shown[2], f"no UTC on hover: {shown}")
    page.eval(
        "(() => { const s = document.querySelector('#set-zone'); s.value = 'utc'; s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.until(
        "document.querySelector('.page-head time').textContent.endsWith('UTC')", "all times in UTC if asked"
    )
    moved = page.eval("""import('./js/time.js').then((time) => {
        const element = time.age(new Date(Date.now() - 5 * 60000).toISOString());
        document.querySelector('main').append(element);
        const before = element.textContent;
        element.dateTime = new Date(Date.now() - 65 * 60000).toISOString();
        time.rewriteTimes();
        return [before, element.textContent]; })""")
    must(moved == ["5 min ago", "1 h ago"], f"ages: {moved}")
    # A viewer's clock that is an hour off does not make fresh nodes old. The server's time has no fractions of a second.
    skewed = page.eval("""import('./js/time.js').then((time) => {
        time.heardServerTime(new Date(Date.now() + 3600000).toUTCString());
        const text = time.age(new Date(Date.now() + 3600000 - 61000).toISOString()).textContent;
        time.heardServerTime(new Date().toUTCString());
        return text; })""")
    must(skewed == "1 min ago", f"with a clock that is an hour behind, a minute is {skewed}")
    page.close()


@case
def the_theme_follows_the_system_and_the_choice(browser, world):
    page = sign_in(browser, world, dark=True)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    must(page.eval(ground) == "rgb(17, 21, 26)", f"dark is {page.eval(ground)}")
    page.eval(
        "(() => { const s = document.querySelector('#set-theme'); s.value = 'light'; s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    must(page.eval(ground) == "rgb(244, 245, 247)", f"light is {page.eval(ground)}")
    page.call("Page.reload")
    page.until("document.querySelector('h1')?.textContent === 'Fleet'")
    must(page.eval(ground) == "rgb(244, 245, 247)", "the choice is forgotten")
    page.media(dark=False, reduced_motion=False)
    must(
        page.eval(
            "parseFloat(getComputedStyle(document.querySelector('.split-part')).transitionDuration) > 0"
        ),
        "nothing moves for those who do not mind, so the next line proves nothing",
    )
    page.media(dark=False, reduced_motion=True)
    must(
        page.eval(
            "[...document.querySelectorAll('*')].every((e) => parseFloat(getComputedStyle(e).transitionDuration) === 0 && getComputedStyle(e).animationName === 'none')"
        ),
        "something moves for those who asked for stillness",
    )
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
            found = page.eval(
                """axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations']})
                .then((result) => ({looked: result.passes.length, wrong: result.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target} ${node.any[0]?.message ?? ''}`).join(' | ')}`)}))"""
            )
            wrong += [f"{name} {window}: {one}" for one in found["wrong"]]
            must(found["looked"] > 10, f"{name}: only {found['looked']} rules had something to look at")
            looked += found["looked"]
        page.close()
    must(not wrong, "\n        ".join(wrong))
    note(f"{looked} rules passed on {3 * (len(PAGES) + 1)} views")


@case
def pictures_of_every_page(browser, world):
    for look, window in {
        "light": {},
        "dark": {"dark": True},
        "phone": {"width": 360, "height": 740, "phone": True},
    }.items():
        page = sign_in(browser, world, **window)
        for name, where in {
            **PAGES,
            "nodes-wrong": "#/nodes?state=needsPerson,failed,quarantined,silent",
        }.items():
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
        note(
            f"{name}: {took} ms from the click to the rows, {page.eval('document.querySelectorAll(`*`).length')} elements"
        )
    page.close()
