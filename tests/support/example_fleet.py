# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results of ppin_info and ppin_connectivity_info for an example fleet, with every kind of finding of the report.

As a program, makes the picture of the documentation, in Debian's chromium: example_fleet.py FILE.png
"""

import sys
import tempfile
import time
from pathlib import Path

from ansible_collections.hsmops.primus.plugins.module_utils._client.validity import validity

NOW = 1795518000
DAY = 24 * 60 * 60


def days_ago(days):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - days * DAY - 3600))


def file(path, mode, **differs):
    facts = {"path": path, "exists": True, "mode": mode, "owner": "root", "group": "primus", "checksum": "0" * 64}
    return {**facts, "link": None, "mount": False, "hard_links": 1, "acl": [], "refused": None, **differs}


RECENTLY, LONG_AGO = days_ago(12), days_ago(203)


def partition(name, slot_id=0, configured=True, since=RECENTLY, proxy_users=("svc_example",)):
    return {
        "user_name": name,
        "configured": configured,
        "entries": [{"index": index, "slot_id": slot_id, "configured": configured} for index in (1, 2)],
        "hsms": ["hsm0", "hsm1"],
        "proxy_users": list(proxy_users),
        "since": since,
        "rejected": None,
        "setup_password_validity": validity(since, None, bool(proxy_users)),
    }


def service_user(name="svc_example", configured=True, since=LONG_AGO):
    return {"name": name, "configured": configured, "entries": [{"index": 3, "configured": configured}], "since": since}


def look(**differs):
    """Return a result of ppin_info for a client without findings. differs: values that replace its own."""
    result = {
        "changed": False,
        "installed": True,
        "executable": "/usr/local/primus/bin/ppin",
        "changeable": None,
        "version": "2.2.4",
        "home": "/usr/local/primus",
        "config": file("/etc/primus/primus.cfg", "0640"),
        "secrets": file("/etc/primus/.secrets.cfg", "0660"),
        "passwords_in_plaintext": [],
        "partitions": [partition("PAYMENTS"), partition("ARCHIVE", 1)],
        "service_users": [service_user()],
        "files": {},
        "group": {"name": "primus", "exists": True, "members": []},
        "ledger": file("/etc/primus/.secrets.cfg.ledger", "0600", problem=None),
        "directory": file("/etc/primus", "0750", hard_links=None),
        "interrupted": False,
        "leftovers": [],
        "orphans": [],
        "check_mode": False,
        "error": None,
    }
    return {**result, **differs}


NO_ROUTE = "Failed to connect to the host via ssh: ssh: connect to host web07.example.com port 22: No route to host"

FLEET = {
    **{"web%02d.example.com" % number: look() for number in range(1, 11)},
    "web04.example.com": look(partitions=[partition("PAYMENTS"), partition("ARCHIVE", 1, False, None)]),
    "web07.example.com": {"unreachable": True, "changed": False, "msg": NO_ROUTE},
    "batch1.example.com": look(partitions=[partition("ARCHIVE")]),
    "batch2.example.com": look(partitions=[partition("ARCHIVE", since=None)], version="2.1.9"),
    "batch3.example.com": look(
        partitions=[partition("ARCHIVE")],
        config=file("/etc/primus/primus.cfg", "0644"),
        passwords_in_plaintext=["primus.hsms.hsm0.slots.slot0.proxy_password"],
    ),
    "batch4.example.com": look(partitions=[partition("ARCHIVE", since=days_ago(411))]),
}
"""With max_age_days=365, batch4 has a finding."""


def main(picture):
    root = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(root / "build"))
    from ansible_collections.hsmops.primus.plugins.plugin_utils._fleet.report import build_report, to_html
    from playwright.sync_api import sync_playwright

    with tempfile.NamedTemporaryFile("w", suffix=".html") as page, sync_playwright() as playwright:
        page.write(to_html(build_report(FLEET, now=NOW, max_age_days=365)))
        page.flush()
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1300, "height": 1480}, device_scale_factor=0.8)
        tab.goto(f"file://{page.name}")
        tab.screenshot(path=picture)
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1])
