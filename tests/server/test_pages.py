"""The page's files: they may run themselves and nothing else, need nothing from elsewhere, and speak nine languages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from edgeai.server.web.pages import Asset, assets
from tests.server.scripted import ScriptedModel
from tests.server.serving import serving

LANGUAGES = ("en", "fr", "sw", "pt", "es", "ar", "hi", "id", "zh")
MESSAGES = {tag: json.loads(assets()[f"messages/{tag}.json"].content) for tag in LANGUAGES}
CODE = {name: asset.content.decode() for name, asset in assets().items() if not name.startswith("messages/")}


@pytest.fixture(scope="module")
def board() -> Iterator[httpx.Client]:
    with serving(ScriptedModel()) as served, httpx.Client(base_url=served.url) as client:
        yield client


def test_every_file_is_served_under_the_policy(board: httpx.Client) -> None:
    for path in ("/", "/sw.js", *(f"/web/{name}" for name in assets())):
        answer = board.get(path)
        assert answer.status_code == 200, path
        rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
        assert {rules[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert board.get("/web/main.js").headers["content-type"].startswith("text/javascript")
    assert board.get("/web/icon.svg").headers["content-type"] == "image/svg+xml"


def test_what_the_browser_has_is_not_sent_again(board: httpx.Client) -> None:
    first = board.get("/web/app.css")
    again = board.get("/web/app.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert board.get("/web/app.css", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/web/", "/web/pages.py", "/web/../app.py", "/web/%2e%2e/app.py", "/web/messages/xx.json"]
)
def test_nothing_else_is_served(board: httpx.Client, path: str) -> None:
    assert board.get(path).status_code == 404


def test_nothing_comes_from_elsewhere() -> None:
    for name, text in CODE.items():
        without_names = text.replace("http://www.w3.org/2000/svg", "")  # a namespace, not an address
        assert not re.search(r"https?://|[\"'(]//[a-z]|@import", without_names), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
    assert not re.search(r"\son[a-z]+=|\sstyle=|javascript:|<script(?![^>]*\ssrc=)|<style", CODE["index.html"])


def test_a_first_visit_loads_a_few_tens_of_kilobytes() -> None:
    visited = [
        asset for name, asset in assets().items() if not name.startswith("messages/") or name.endswith("en.json")
    ]
    assert sum(len(asset.content) for asset in visited) < 48 << 10


def test_every_file_that_is_named_is_there() -> None:
    named = {name for text in CODE.values() for name in re.findall(r"[\"'](?:\./|/web/)([\w./-]+\.\w+)[\"']", text)}
    assert named <= set(assets())
    assert {"main.js", "app.css", "chat.js", "icon.svg"} <= named


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_message_is_translated(tag: str) -> None:
    english, words = MESSAGES["en"], MESSAGES[tag]
    assert list(words) == list(english)
    for key, text in words.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", english[key])), key
        assert text.strip() == text != ""
    same = [key for key in words if words[key] == english[key]]
    assert tag == "en" or len(same) < 12, same  # names such as "Version" are the same in some languages


def test_the_code_and_the_messages_know_each_other() -> None:
    text = "\n".join(CODE.values())
    for key in MESSAGES["en"]:
        assert re.search(rf"[\"']{key}[\"']|^\s*{key}[:,]|, {key},|\{{ {key}:", text, re.MULTILINE), (
            f"nobody says {key}"
        )
    said = set(re.findall(r"\bsay\(\"(\w+)\"|data-(?:text|label)=\"(\w+)\"|\b(?:button|field)\(\"(\w+)\"", text))
    assert {next(filter(None, groups)) for groups in said} <= set(MESSAGES["en"])


def test_messages_of_files_are_read_as_they_are(board: httpx.Client) -> None:
    asset: Asset = assets()["messages/ar.json"]
    assert board.get("/web/messages/ar.json").json() == json.loads(asset.content) == MESSAGES["ar"]
