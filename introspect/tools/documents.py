"""Tools with which the model reads the documents of a phase."""

from __future__ import annotations

from typing import Any

from introspect.errors import TO_A_MODEL, ToolError, did_you_mean
from introspect.tools.context import ToolContext, left_out
from introspect.tools.domains import DocumentId


def list_heritage_documents(context: ToolContext) -> dict[str, Any]:
    """Documents that you may read."""
    listed = [{"document": d.id, "lines": len(d.lines), "title": d.title} for d in context.documents.values()]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {"documents": listed[:shown], "total": len(listed)}
        return result | left_out(len(listed) - shown, "get_heritage_summary takes a start")

    return context.fit_page(page, len(listed))


def get_heritage_summary(context: ToolContext, start: int = 0) -> dict[str, Any]:
    """What the documents are about, and how long they are.

    Args:
        start: how many documents to skip
    """
    rest = list(context.documents.values())[max(0, start) :]

    def page(shown: int) -> dict[str, Any]:
        listed = [
            {
                "document": d.id,
                "title": d.title,
                "summary": d.summary,
                "lines": len(d.lines),
                "words": sum(len(line.split()) for line in d.lines),
            }
            for d in rest[:shown]
        ]
        result: dict[str, Any] = {"total": len(context.documents), "documents": listed}
        return result | left_out(len(rest) - shown, next_start=max(0, start) + shown)

    return context.fit_page(page, len(rest))


def read_heritage_document(
    context: ToolContext, document: DocumentId, start_line: int = 1, end_line: int | None = None
) -> dict[str, Any]:
    """Read some lines of a document.

    Args:
        document: a name that list_heritage_documents gives
        start_line: the first line, counted from 1
        end_line: the last line
    """
    if document not in context.documents:
        hint = did_you_mean(document, context.documents, TO_A_MODEL)
        raise ToolError(f"no document is called '{document[:80]}'; {hint}")
    lines = context.documents[document].lines
    last = len(lines) if end_line is None else min(end_line, len(lines))
    if not 1 <= start_line <= last:
        raise ToolError(f"lines {start_line} to {last}: {document} has lines 1 to {len(lines)}")

    def page(shown: int) -> dict[str, Any]:
        end = start_line + shown - 1
        result: dict[str, Any] = {"document": document, "first": start_line, "last": end, "total": len(lines)}
        if end < last:
            result["next_line"] = end + 1
        return result | {"text": "\n".join(lines[start_line - 1 : end])}

    return context.fit_page(page, last - start_line + 1)
