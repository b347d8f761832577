"""The error tree, and the exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from generators.markdown import page, sentence, table
from snapkeep.cli.backups import PARTIAL
from snapkeep.cli.coverage import UNCOVERED
from snapkeep.cli.reconcile import LEFT
from snapkeep.cli.work import CANCELLED
from snapkeep.model import errors


def errors_page() -> str:
    """The error tree."""
    tree = inspect.getdoc(errors) or ""
    rows = [
        [
            f'<a id="{error.code}"></a>`{error.code}`',
            str(error.http_status),
            str(error.exit_code),
            "yes" if error.retryable else "no",
            sentence(error.__doc__),
            error.default_next_step,
        ]
        for error in errors.ERRORS.values()
    ]
    drawn = inspect.cleandoc(tree[tree.index("    SnapkeepError") : tree.index("The class says")])
    return page(
        "Errors and exit codes",
        "Every error has a stable `code`, a sentence, and a next step. REST answers "
        "`application/problem+json` (RFC 9457), a [Problem](rest.md#problem) with the system's own reason in "
        "`vendor_code` and `vendor_message`. The command line prints them and exits with the code's number.",
        "```console\n$ snapkeep snapshot create files1/archive\n"
        "Error: share 'archive' does not support create: it is a nested share: its files are in the snapshots of "
        "the share that it lies in  [unsupported]\n"
        "Next:  See `snapkeep asset show` for what this asset can do.\n```",
        f"## The tree\n\n```text\n{drawn}\n```",
        "## Codes",
        "*Retried* says whether Snapkeep itself tries again before it reports the error. Paths that the server does "
        "not have answer with `not_found` (404), a method that a path does not have with `invalid_input` (405).",
        table(("Code", "HTTP", "Exit code", "Retried", "Meaning", "Next step, unless a better one is known"), rows),
        "## Exit codes",
        table(("Exit code", "Meaning"), exit_codes()),
    )


def exit_codes() -> list[list[str]]:
    """Return every exit code of the command line."""
    fixed: Mapping[int, str] = {
        0: "success",
        1: "a check found a failure, a question was answered with no, or a defect of Snapkeep (`internal`)",
        2: "the command or its options are wrong (usage), or `invalid_input`",
        CANCELLED: "the operation was cancelled",
        PARTIAL: "`snapkeep backup run` wrote a partial recovery point: something could not be read",
        LEFT: "`snapkeep reconcile` found something that is not mended",
        UNCOVERED: "`snapkeep coverage` found something unprotected, or a recovery point or a proof that is too old",
        130: "ended by Ctrl-C; an operation that was begun goes on in the server",
        141: "the reader of the output has left (`snapkeep ... | head`)",
    }
    known = {error.exit_code: f"`{error.code}`" for error in errors.ERRORS.values() if error.exit_code > 2}
    return [[str(number), text] for number, text in sorted({**known, **fixed}.items())]
