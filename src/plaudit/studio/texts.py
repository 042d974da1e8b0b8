"""Texts as pages take them: plain, by message, and as a tree of Markdown that needs no HTML.

A node is {"t": kind, "c": children}, and of kinds text, code and pre "c" is a text. Whatever looks
like HTML in a text is text. The page makes an element for each node, so that no text of a model or
a person is ever read as markup.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from plaudit.feedback.entries import plain_text
from plaudit.records.types import Text

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Node = dict[str, Any]

LONGEST_MARKDOWN = 50_000
"""Longer texts are shown as they are."""

_BLOCKS = {
    "paragraph": "p", "heading": "h", "bullet_list": "ul", "ordered_list": "ol",
    "list_item": "li", "blockquote": "quote", "strong": "strong", "em": "em", "link": "link",
}  # fmt: skip
_SIGNS = re.compile(
    r"[\\`*_<>&\[\]!#|~\0]|[^\S \n]|^ *(?:[-+=]|\d{1,9}[.)])|^ {4}|^ {2,3}\S| {2,}$", re.M
)
"""What may begin any Markdown; a text without these is paragraphs and lines."""


def text_json(text: Text) -> dict[str, Any]:
    """{"plain", "messages", "tokens"} of a prompt or an answer."""
    if isinstance(text, str):
        return {"plain": text, "messages": None, "tokens": tree(text)}
    messages = [
        {"role": said["role"], "content": said["content"], "tokens": tree(said["content"])}
        for said in text
    ]
    tokens = [node for message in messages for node in message["tokens"]]
    return {"plain": plain_text(text), "messages": messages, "tokens": tokens}


def tree(text: str) -> list[Node]:
    """The nodes of a text."""
    if len(text) > LONGEST_MARKDOWN:
        return [{"t": "pre", "c": text}]
    if not _SIGNS.search(text):
        return _paragraphs(text)
    return _nested(_markdown().parse(text))


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False})


def _paragraphs(text: str) -> list[Node]:
    """As Markdown reads a text that has no signs: blank lines part paragraphs."""
    return [
        {"t": "p", "c": _lines(part)} for part in re.split(r"\n[ \n]*\n", text) if part.strip(" \n")
    ]


def _lines(text: str) -> list[Node]:
    nodes: list[Node] = []
    for line in text.strip(" \n").split("\n"):
        if nodes:
            nodes.append({"t": "br", "c": []})
        nodes.append({"t": "text", "c": line.strip(" ")})
    return nodes


def _nested(tokens: list[Token]) -> list[Node]:
    """markdown-it's flat list of openings and closings as a tree."""
    top: list[Node] = []
    open_nodes: list[list[Node]] = [top]
    for token in tokens:
        into = open_nodes[-1]
        if token.type == "inline":
            into.extend(_nested(token.children or []))
        elif token.nesting == 1:
            into.append(_opened(token))
            open_nodes.append(into[-1]["c"])
        elif token.nesting == -1:
            open_nodes.pop()
        else:
            into.append(_leaf(token))
    return top


def _opened(token: Token) -> Node:
    node: Node = {"t": _BLOCKS[token.type.removesuffix("_open")], "c": []}
    if node["t"] == "h":
        node["level"] = int(token.tag[1:])
    if node["t"] == "link":
        node["href"] = str(token.attrGet("href") or "")
    return node


def _leaf(token: Token) -> Node:
    """An image is its description: a page of the studio asks nothing of anybody else."""
    kinds = {"code_inline": "code", "code_block": "pre", "fence": "pre"}
    if token.type in ("softbreak", "hardbreak"):
        return {"t": "br", "c": []}
    if token.type == "hr":
        return {"t": "p", "c": [{"t": "text", "c": token.markup}]}
    return {"t": kinds.get(token.type, "text"), "c": token.content}
