"""What a person sees of the pages in a real Chromium: used by hand, seen by axe, in light, dark and on a phone.

    python browser.py URL NAME FOLDER [PATH ...]

Prints one JSON object: what was said and shown, what axe found, and what the browser complained of. Screenshots
go into FOLDER. PATHs are further pages that ask the model NAME.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "is_mobile": True},
}


def use(page: Page, report: dict[str, Any]) -> None:
    """Mistype an input, mend it, ask, and take another example."""
    number = page.locator(".control[data-kind=number] input").first
    control = page.locator(".control[data-kind=number]").first
    good = number.input_value()
    number.fill("wide")
    page.wait_for_selector(".control.bad")
    report["said"] = control.locator(".said").inner_text()
    page.click("button[type=submit]")
    page.wait_for_selector("#shown .refused")
    report["refused"] = page.inner_text("#shown")
    number.fill(good)
    page.wait_for_selector(".control.bad", state="detached")
    page.click("button[type=submit]")
    page.wait_for_selector("#shown .value:not(.refused)")
    report["answer"] = page.inner_text("#shown")
    report["legend"] = page.inner_text("#legend")
    report["curl"] = page.inner_text("#curl")
    page.click("#another")
    report["another"] = page.inner_text("#curl") != report["curl"]


def main(url: str, name: str, folder: str, *more: str) -> None:
    report: dict[str, Any] = {"axe": {}, "complaints": [], "wide": [], "asked": {}}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        for view, options in VIEWS.items():
            context = browser.new_context(**options)
            page = context.new_page()
            page.on("console", lambda message: report["complaints"].append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: report["complaints"].append(str(error)))
            for path in ("docs", f"playground/{name}", *more):
                page.goto(f"{url}/{path}")
                if path in more:
                    page.click("button[type=submit]")
                    page.wait_for_selector("#answer:not([hidden])")
                    report["asked"][f"{path} {view}"] = page.inner_text("#status")
                elif path != "docs":
                    used: dict[str, Any] = {}
                    use(page, used)
                    report[view] = used
                found = Axe().run(page).response["violations"]
                report["axe"][f"{path} {view}"] = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]
                if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                    report["wide"].append(f"{path} {view}")
                page.screenshot(path=str(Path(folder) / f"{path.replace('/', '-')}-{view}.png"), full_page=True)
            context.close()
        browser.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
