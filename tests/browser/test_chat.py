"""The chat in a real browser, with the real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.browser.chromium import answer, ask, until
from tests.server.serving import Served

LONG = "Write a very long story about a river, with many chapters."


def sent(page: Any, text: str) -> dict[str, Any]:
    """The body of the request that sending `text` makes."""
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, text)
    body: dict[str, Any] = json.loads(request.value.post_data)
    return body


def test_an_answer_streams_and_stays_after_a_reload(page: Any) -> None:
    assert ask(page, "Name three fruits.")
    assert page.locator(".turn").count() == 2
    assert page.locator("#said").inner_text() == "The answer is complete."
    page.reload()
    page.click("aside .open")
    assert page.locator(".turn.user .body").inner_text() == "Name three fruits."
    assert page.locator(".turn.assistant .body").inner_text()


def test_the_whole_conversation_is_sent(page: Any) -> None:
    first = ask(page, "Say hello.")
    body = sent(page, "And in French?")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == "Say hello."
    assert body["messages"][1]["content"].split()
    assert first
    assert body["model"] == "smollm2-135m-instruct"


def test_stop_keeps_what_was_written_and_frees_the_model(page: Any, served: Served) -> None:
    page.fill("#text", LONG)
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.turn.assistant .body')?.innerText.length > 20")
    page.get_by_role("button", name="Stop").click()
    partial = answer(page)
    assert len(partial) > 20
    assert served.eventually(lambda: served.model.engine.stats().running == 0, seconds=60)
    assert page.get_by_role("button", name="Send").is_visible()


def test_escape_stops(page: Any, served: Served) -> None:
    page.fill("#text", LONG)
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn.assistant .body p")
    page.keyboard.press("Escape")
    answer(page)
    assert served.eventually(lambda: served.model.engine.stats().running == 0, seconds=60)


def test_a_changed_question_replaces_what_followed(page: Any) -> None:
    ask(page, "Name one fruit.")
    ask(page, "Name one animal.")
    assert page.locator(".turn").count() == 4
    page.get_by_role("button", name="Edit").first.click()
    page.locator(".edit textarea").fill("Name one colour.")
    page.locator(".edit").get_by_role("button", name="Send").click()
    answer(page)
    assert page.locator(".turn.user .body").all_inner_texts() == ["Name one colour."]
    assert page.locator(".turn.assistant").count() == 1


def test_a_question_is_asked_again(page: Any) -> None:
    ask(page, "Name one fruit.")
    with page.expect_request("**/v1/chat/completions") as request:
        page.get_by_role("button", name="Try again").click()
    assert [message["role"] for message in json.loads(request.value.post_data)["messages"]] == ["user"]
    assert answer(page)


def test_files_go_into_the_prompt(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The password of the well is 7 buckets. Ñandú.", encoding="utf-8")
    page.set_input_files("input[type=file]", tmp_path / "notes.txt")
    page.wait_for_selector(".files li")
    (message,) = sent(page, "What is in my notes?")["messages"]
    assert message["content"] == "[notes.txt]\nThe password of the well is 7 buckets. Ñandú.\n\nWhat is in my notes?"
    assert page.locator(".turn.user .files").inner_text().strip().endswith("notes.txt")
    assert page.locator("form .files").count() == 0


def test_files_that_are_no_text_or_too_large_are_refused(page: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    page.set_input_files("input[type=file]", tmp_path / "photo.png")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.locator("#notice").inner_text() == "photo.png is not a text file."
    (tmp_path / "book.txt").write_text("word " * 100_000)
    page.set_input_files("input[type=file]", tmp_path / "book.txt")
    page.get_by_text("book.txt is too large").wait_for()
    assert page.locator(".files li").count() == 0


def test_conversations_are_exported_and_deleted(page: Any) -> None:
    ask(page, "Name one fruit.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    kept = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as text").click()
    assert Path(download.value.path()).read_text(encoding="utf-8").startswith("# Name one fruit.\n\n## user\n")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete “Name one fruit.”").click()
    page.wait_for_selector("aside .open", state="detached")
    assert page.locator(".turn").count() == 0


def test_answers_are_copied(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "Name one fruit.")
    page.get_by_role("button", name="Copy").last.click()
    page.get_by_text("Copied").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()").strip()


def test_refusals_are_shown_and_can_be_tried_again(page: Any) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.fill("#text", "Name one fruit.")
    page.keyboard.press("Enter")
    page.get_by_text("The board cannot be reached").wait_for()
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    assert answer(page)
    assert page.locator(".error").count() == 0


def test_the_models_errors_reach_the_reader(page: Any) -> None:
    page.fill("#text", "word " * 5000)
    page.keyboard.press("Enter")
    page.wait_for_selector(".error")
    assert "2048" in page.locator(".error").inner_text()  # the context length
