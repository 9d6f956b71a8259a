# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the report in Debian's chromium, as a user sees and uses it."""

import os
import re
import shutil

import pytest
from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.report import build_report, to_html
from example_fleet import FLEET, NOW, look

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed", allow_module_level=True)

REJECTED = {"code": "0x80005017", "name": "login to the HSM failed", "class": "rejected", "hint": "Check it."}
SLOTS = [
    {"slot": "slot0", "slot_id": 0, "user_name": "PAYMENTS", "ok": True, "error": None},
    {"slot": "slot1", "slot_id": 1, "user_name": "ARCHIVE", "ok": False, "error": REJECTED},
]
HSM = {
    "hsm": "hsm0",
    "host": "hsm1.example.com",
    "port": 2310,
    "connected": True,
    "firmware": "RP-2.10.0-T",
    "error": None,
    "slots": SLOTS,
}


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, tmp_path):
    """Show a report: its page. It may neither ask for anything but itself, nor complain."""
    pages, complaints, requests = [], [], []

    def show_page(clients=FLEET, logins=None, script=True, **how):
        file = tmp_path / "report.html"
        file.write_text(to_html(build_report(clients, logins, NOW, 365)))
        page = chromium.new_page(java_script_enabled=script, **how)
        page.set_default_timeout(60000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield show_page
    for page in pages:
        page.close()
    assert complaints == []
    assert [url for url in requests if not re.fullmatch(r"file://.*/report\.html", url)] == []


def column(page, caption, number):
    """What a column of a table shows, but for rows that are filtered out."""
    rows = page.locator("table", has=page.locator("caption", has_text=caption)).locator("tbody tr:visible")
    return [
        text.strip()
        for text in rows.locator(f":nth-child({number})").locator("xpath=self::td|self::th").all_inner_texts()
    ]


def head(page, caption, name):
    table = page.locator("table", has=page.locator("caption", has_text=caption))
    return table.get_by_role("columnheader", name=name, exact=True)


def test_all_is_there(show):
    page = show()
    assert page.title() == "Primus HSM clients, 2026-11-24"
    assert len(column(page, "Hosts", 1)) == len(FLEET)
    assert len(column(page, "Partitions", 1)) == 22
    assert page.get_by_role("table").count() == 3
    assert page.get_by_role("heading", level=3).all_inner_texts()[0].endswith("Hosts that could not be reached: 1")


def test_a_click_sorts(show):
    page = show()
    first = column(page, "Hosts", 1)
    assert first[0] == "web07.example.com"  # the one of which nothing is known
    host = head(page, "Hosts", "Host")
    assert host.get_attribute("aria-sort") is None
    host.get_by_role("button").click()
    assert host.get_attribute("aria-sort") == "ascending"
    assert column(page, "Hosts", 1) == sorted(first)
    host.get_by_role("button").click()
    assert host.get_attribute("aria-sort") == "descending"
    assert column(page, "Hosts", 1) == sorted(first, reverse=True)
    head(page, "Hosts", "State").get_by_role("button").click()
    assert host.get_attribute("aria-sort") is None
    assert column(page, "Hosts", 2)[0].endswith("Not inspected")


def test_keys_sort(show):
    page = show()
    age = head(page, "Partitions", "Age")
    age.get_by_role("button").focus()
    page.keyboard.press("Enter")
    ages = [int(text.split()[0]) for text in column(page, "Partitions", 8) if text != "–"]
    assert ages == sorted(ages) and len(set(ages)) > 1
    assert age.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    shown = column(page, "Partitions", 8)
    assert shown[0] == "411 days" and shown[-1] == "–"  # what is not known stays at the end
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Setup password valid until"


def test_numbers_are_sorted_as_numbers(show):
    page = show({name: look() for name in ("h10", "h9", "h100", "h1")})
    head(page, "Hosts", "Host").get_by_role("button").click()
    assert column(page, "Hosts", 1) == ["h1", "h9", "h10", "h100"]


def test_the_filter(show):
    page = show()
    box = page.get_by_role("searchbox", name="Filter")
    box.fill("WEB04 missing")
    assert column(page, "Hosts", 1) == ["web04.example.com"]
    assert column(page, "Partitions", 2) == ["ARCHIVE"]
    assert page.get_by_role("status").inner_text() == "2 of 49 rows"
    box.fill("no such thing")
    assert column(page, "Hosts", 1) == []
    box.fill("")
    assert len(column(page, "Hosts", 1)) == len(FLEET)
    assert page.get_by_role("status").inner_text() == ""
    box.fill("web")
    box.press("Enter")
    assert len(column(page, "Hosts", 1)) == 10


def test_a_finding_shows_its_hosts(show):
    page = show()
    page.get_by_role("button", name="Show in the tables: password in plaintext").click()
    assert column(page, "Hosts", 1) == ["batch3.example.com"]
    assert page.get_by_role("searchbox").input_value() == '"password in plaintext"'


def test_without_the_script_all_can_be_read(show):
    page = show(script=False)
    assert len(column(page, "Hosts", 1)) == len(FLEET)
    assert page.get_by_role("button").count() == 0
    assert page.get_by_role("searchbox").count() == 0


def test_logins(show):
    client = look()
    page = show({"h": client, "g": client}, {"h": {"hsms": [HSM]}, "g": {"failed": True, "msg": "no"}})
    assert column(page, "Hosts", 6) == ["1 of 2", "–"]
    assert column(page, "Logins that failed", 2) == ["ARCHIVE"]
    assert column(page, "Logins that failed", 6) == ["0x80005017"]
    assert "Each partition was logged in to." in page.locator("header").inner_text()


def luminance(color):
    """Of a CSS colour, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRASTS = """() => [...document.querySelectorAll("body *")].filter(element =>
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()) && element.checkVisibility()
  ).map(element => {
    let ground = element;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const text = element.textContent.trim().slice(0, 40);
    return [text, getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
  })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(show, scheme):
    page = show(color_scheme=scheme)
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1) == (scheme == "dark")
    pale = []
    for text, color, ground in page.evaluate(CONTRASTS):
        dark, bright = sorted((luminance(color), luminance(ground)))
        if (bright + 0.05) / (dark + 0.05) < 4.5:  # WCAG 2.2, AA
            pale.append((text, color, ground))
    assert pale == []


def test_what_is_seen_is_said_in_words(show):
    page = show()
    for caption, states in (
        ("Hosts", {"OK", "Attention", "Problem", "Not inspected"}),
        ("Partitions", {"MISSING", "Configured"}),
    ):
        number = 2 if caption == "Hosts" else 3
        assert {text.split(maxsplit=1)[1] for text in column(page, caption, number)} == states
    marks = {text.split()[0] for text in column(page, "Hosts", 2)}
    assert len(marks) == 4
    for table in page.get_by_role("table").all():
        assert table.locator("caption").count() == 1
        assert set(table.locator("thead th").evaluate_all("all => all.map(one => one.scope)")) == {"col"}
        assert set(table.locator("tbody th").evaluate_all("all => all.map(one => one.scope)")) == {"row"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(chromium, tmp_path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    file = tmp_path / "report.html"
    file.write_text(to_html(build_report(FLEET, {"web01.example.com": {"hsms": [HSM]}}, NOW, 365)))
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)  # axe is a script
    page = context.new_page()
    page.goto(file.as_uri())
    found = axe.Axe().run(page)
    context.close()
    assert found.violations_count == 0, found.generate_report()


def test_it_fits_a_narrow_screen(show):
    page = show(viewport={"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_prints(show):
    page = show(color_scheme="dark")
    page.emulate_media(media="print")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 1
    assert not page.get_by_role("searchbox").is_visible()
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2


def test_a_thousand_hosts_can_be_sorted_and_filtered(show):
    page = show({"host%04d.example.com" % number: look() for number in range(1000)})
    head(page, "Partitions", "Partition").get_by_role("button").click()
    assert set(column(page, "Partitions", 2)[:1000]) == {"ARCHIVE"}
    page.get_by_role("searchbox").fill("host0042 payments")
    assert page.get_by_role("status").inner_text() == "1 of 4000 rows"


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=console.error(1)>",
        "</script><script>console.error(1)</script>",
        '"><svg onload=console.error(1)>',
    ],
)
def test_hostile_text_does_nothing(show, text):
    page = show({text: {"unreachable": True, "msg": text}, "h": look(version=text)})
    assert column(page, "Hosts", 1) == [text, "h"]
    assert page.locator("img, svg").count() == 0
    page.get_by_role("searchbox").fill(text.split()[0])
    head(page, "Hosts", "Host").get_by_role("button").click()


def test_even_unescaped_text_could_not_run(chromium, tmp_path):
    """The page's policy is a second wall: it is tried by breaking the first one."""
    text = to_html(build_report(FLEET, now=NOW)).replace(
        "</header>", "</header><script>document.title = 'ran'</script>"
    )
    file = tmp_path / "broken.html"
    file.write_text(text)
    page = chromium.new_page()
    page.goto(file.as_uri())
    assert page.title() != "ran"
    page.close()
