"""`edgeai fetch`: the download of a build alone, with its size told before."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import AcceptLicence, JsonFlag, emit, progress_display, say

if TYPE_CHECKING:
    from edgeai.build.fetch import Download

ASK_FROM = 500_000_000  # bytes: what people on a metered link want to be asked about


def fetch(
    target: Annotated[
        str,
        typer.Argument(metavar="RECIPE|hub:OWNER/NAME", help="A recipe, or a repository of a hub (ms: ModelScope)."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be downloaded.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")] = False,
    accept_licence: AcceptLicence = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Look up anew which commit a branch is.")] = False,
    json: JsonFlag = False,
) -> None:
    """Download a model's weights ahead of `edgeai build`, to the cache."""
    from edgeai.build.fetch import plan_download
    from edgeai.config import cache_dir

    with progress_display() as progress:
        plan = plan_download(target, cache_dir(), progress, accept_licence=accept_licence or dry_run, refresh=refresh)
    report = _describe(target, plan)
    say(_announcement(report))
    if dry_run:
        if json:
            emit(report)
        return
    missing = report["missing_bytes"]
    large = missing is not None and missing >= ASK_FROM
    if large and not yes and sys.stdin.isatty() and not typer.confirm("Download it?", err=True):
        raise typer.Exit(1)
    with progress_display() as progress:
        where, provenance = plan.run(progress)
    if json:
        sha256 = dict(provenance.sha256) if provenance else {}
        emit(report | {"path": str(where), "revision": provenance.revision if provenance else None, "sha256": sha256})
    else:
        typer.echo(where)


def _describe(target: str, plan: Download) -> dict[str, Any]:
    files = plan.plan.files if plan.plan else ()
    return {
        "target": target,
        "source": plan.title,
        "kind": plan.entry.kind,
        "missing_bytes": plan.missing,
        "size_bytes": plan.plan.size if plan.plan else None,
        "files": {file.name: file.size for file in files},
    }


def _announcement(report: dict[str, Any]) -> str:
    missing = report["missing_bytes"]
    if missing == 0:
        return f"{report['source']}: all of it is here"
    size = "a download whose size is not known ahead" if missing is None else f"{missing / 1e6:.1f} MB to download"
    return f"{report['source']}: {size}"
