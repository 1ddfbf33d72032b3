"""What models write, shown: as elements, and never as markup of their own."""

from __future__ import annotations

from typing import Any

import pytest

RENDER = """async text => {
  const { render } = await import("/web/markdown.js");
  const box = document.createElement("div");
  box.append(render(text));
  for (const each of box.querySelectorAll("*")) ["dir", "tabindex"].forEach(name => each.removeAttribute(name));
  return box.innerHTML;
}"""
CASES = {
    "plain": ("One\ntwo\n\nthree", "<p>One\ntwo</p><p>three</p>"),
    "inline": ("a **bold *and* `code`** _no_", "<p>a <strong>bold <em>and</em> <code>code</code></strong> _no_</p>"),
    "arithmetic": ("2 * 3 * 4 and a*b", "<p>2 * 3 * 4 and a*b</p>"),
    "heading": ("## Title\ntext", "<h4>Title</h4><p>text</p>"),
    "list": ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    "loose list": ("1. a\n\n2. b", '<ol start="1"><li>a</li><li>b</li></ol>'),
    "code": ("```python\nif a < b:\n    pass\n```\nx", "<pre><code>if a &lt; b:\n    pass</code></pre><p>x</p>"),
    "unclosed code": ("```\nstill **written", "<pre><code>still **written</code></pre>"),
    "quote": ("> said\n> so", "<blockquote><p>said\nso</p></blockquote>"),
    "table": (
        "| a | b |\n|---|:-:|\n| 1 | *2* |",
        "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><em>2</em></td></tr></tbody></table>",
    ),
    "no table": ("| a | b |\nno", "<p>| a | b |\nno</p>"),
    "markup": ("<img src=x onerror=alert(1)> & <b>", "<p>&lt;img src=x onerror=alert(1)&gt; &amp; &lt;b&gt;</p>"),
    "link": ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
}


@pytest.mark.parametrize(("text", "html"), CASES.values(), ids=CASES.keys())
def test_what_models_write(page: Any, text: str, html: str) -> None:
    assert page.evaluate(RENDER, text) == html


@pytest.mark.parametrize("piece", ["**", "`", "- a\n", "| a |\n", "> ", "```\n", "*a ", "1. x\n  "])
def test_any_beginning_of_an_answer_is_shown_quickly(page: Any, piece: str) -> None:
    """Answers are drawn while they are written, so that every prefix of one has to be shown."""
    assert page.evaluate(RENDER, piece * 2000)


def test_deep_nesting_stays_text(page: Any) -> None:
    steps = "".join(f"{'  ' * depth}- {depth}\n" for depth in range(300))
    html = page.evaluate(RENDER, steps)
    assert 8 <= html.count("<ul>") <= 10
    assert "299" in html
