"""The page at /docs: complete, safe, and loading nothing from elsewhere."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import msgspec
import numpy as np

from cloche.core.signature import Field, Signature
from cloche.serving.docs import docs_page

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]


class Links(HTMLParser):
    """Links are what a page loads or leads to, and its inline scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [value for name in ("src", "href") if (value := given.get(name)) is not None]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag in ("script", "style") and "src" not in given:
            self.inline.append(tag)


def test_the_page_loads_everything_from_this_server(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door().open() as door:
            page = await door.ask("/docs")
            assert page.headers["content-type"].startswith("text/html")
            policy = page.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            links = Links()
            links.feed(page.body.decode())
            assert links.inline == []
            own = [urljoin("/docs", link) for link in links.loads if not link.startswith(("data:", "#"))]
            assert {"/docs/docs.css", "/docs/docs.js"} <= set(own)
            for link in own:
                assert link.startswith("/")
                assert link not in links.loads  # relative, so that the page works behind a mount
                assert (await door.ask(link)).status == 200
            for name in ("docs.css", "docs.js"):
                text = (await door.ask(f"/docs/{name}")).body.decode()
                assert not re.search(r"https?://(?!127\.0\.0\.1|localhost)", text)

    run(scenario())


def test_the_page_shows_the_signature_and_a_real_row_that_is_answered(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        async with make_door(on_invalid="reject").open() as door:
            text = (await door.ask("/docs")).body.decode()
            for words in (
                "fraud",
                "fraud-model:3",
                "age",
                "a whole number (0 to 120 were seen)",
                "one value a row",
                "curl -s http",
                "cloche.Client(",
                "one of cook, nurse",
            ):
                assert words in text
            shown = re.search(r"<textarea[^>]*>(.*?)</textarea>", text, re.DOTALL)
            assert shown is not None
            row = json.loads(html.unescape(shown[1]))
            assert (await door.ask("/predict/fraud", row)).status == 200

    run(scenario())


def test_what_came_with_a_model_is_text_and_nothing_else(run: Run, make_door: MakeDoor) -> None:
    evil = "<script>alert(1)</script>"
    signature = Signature(
        inputs=(Field(name=evil, datatype="BYTES", shape=(-1,), categories=(evil, '"')),),
        outputs=(Field(name=evil, datatype="BYTES", shape=(-1,)),),
    )

    async def scenario() -> None:
        door = make_door(signature=signature, examples={evil: np.array([evil], object)})
        page = (await door.call("GET", "/docs")).body.decode()
        assert evil not in page
        assert html.escape(evil) in page or "&lt;script&gt;" in page

    run(scenario())


def test_an_answer_stands_beside_the_example_and_a_key_in_the_command_where_one_is_needed(
    run: Run, make_door: MakeDoor
) -> None:
    def curl(page: bytes) -> str:
        return page.decode().partition('id="curl"')[2].partition("</pre>")[0]

    async def scenario() -> None:
        live = make_door().live
        label, scores = np.array(["no"], object), np.array([[0.8, 0.123456789]], np.float32)
        answers = {"label": label, "probabilities": scores}
        page = docs_page(msgspec.structs.replace(live, answers=answers))
        assert "0.123457" in html.unescape(page.decode())
        assert "Bearer clk_…" not in curl(page)
        assert "Bearer clk_…" in curl(docs_page(msgspec.structs.replace(live, keys_required=True)))

    run(scenario())


def test_a_browser_is_led_from_the_root_to_the_page(run: Run, make_door: MakeDoor) -> None:
    async def scenario() -> None:
        door = make_door()
        led = await door.call("GET", "/", headers={"accept": "text/html,*/*"})
        assert (led.status, led.headers["location"]) == (307, "docs")
        other = await door.call("GET", "/", headers={"accept": "*/*"})
        assert (other.status, other.json()["code"], other.json()["hint"]) == (404, "CL-E304", "see /docs")

    run(scenario())
