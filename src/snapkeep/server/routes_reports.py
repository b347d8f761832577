"""Reports, and those that are sent when they are due."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import StreamingResponse

from snapkeep.catalog.report_schedules import SCHEDULE_ORDERS
from snapkeep.model.access import Action, Visible
from snapkeep.model.errors import Conflict, InvalidInput
from snapkeep.model.notifications import ChannelKind
from snapkeep.model.reports import ReportForm, ReportKind
from snapkeep.reports.html import POLICY
from snapkeep.reports.making import report_of
from snapkeep.reports.report import Asked
from snapkeep.reports.sending import ReportSender, calendar_of
from snapkeep.reports.writing import Written
from snapkeep.server.access import allow, listed
from snapkeep.server.authentication import Caller
from snapkeep.server.context import Parts
from snapkeep.server.lists import Moment, Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_reports import ReportScheduleIn, ReportScheduleOut, SentReportOut

router = APIRouter(tags=["reports"])

READ = [allow(Action.REPORT_READ)]
SCHEDULE = [allow(Action.REPORT_SCHEDULE)]
WEEK = timedelta(days=7)
FORMS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report; its rows come as they are read.",
        "content": {form.media_type: {} for form in ReportForm},
    }
}


@router.get("/reports/{what}", response_class=StreamingResponse, responses=FORMS)
async def read_report(
    what: ReportKind,
    visible: Annotated[Visible, listed(Action.REPORT_READ)],
    parts: Parts,
    since: Annotated[
        Moment | None,
        Query(alias="from", description="Only from this time on. Of operations and summary: 7 days before the end."),
    ] = None,
    until: Annotated[
        Moment | None, Query(alias="to", description="Only before this time. Of operations and summary: now.")
    ] = None,
    form: Annotated[ReportForm, Query(alias="format")] = ReportForm.JSON,
    system: Annotated[str | None, Query(max_length=63, description="Only what is about this system.")] = None,
    limit: Annotated[
        int | None, Query(ge=0, le=1_000_000_000, description="At most so many rows; the others are counted.")
    ] = None,
) -> StreamingResponse:
    """Make a report of what the caller may see.

    `coverage` is as of now, and has no period. Of `snapshots`, the period is that in which they were taken; without
    one, it is all that exist.
    """
    now = parts.clock.now()
    if what is ReportKind.COVERAGE and (since is not None or until is not None):
        raise InvalidInput("A report of coverage is as of now", next_step="Leave away `from` and `to`.")
    if what in {ReportKind.OPERATIONS, ReportKind.SUMMARY}:
        until = until or now
        try:
            since = since or until - WEEK
        except OverflowError as error:  # in the first days of all
            raise InvalidInput("There is no time before this", next_step="Give a later `to`, or `from` too.") from error
    if since is not None and until is not None and since >= until:
        raise InvalidInput("The period ends before it begins", next_step="Give a `from` that is before `to`.")
    written = Written(report_of(parts.catalog, Asked(what, now, since, until, system, visible)), form, rows=limit)
    headers = {"Content-Disposition": f'inline; filename="snapkeep-{what}-{now:%Y%m%d-%H%M}.{form}"'}
    if form is ReportForm.HTML:
        headers["Content-Security-Policy"] = f"{POLICY}; frame-ancestors 'none'; sandbox"
    media_type = form.media_type if form is ReportForm.JSON else f"{form.media_type}; charset=utf-8"
    return StreamingResponse(written.pieces(), media_type=media_type, headers=headers)


# -- on schedule -------------------------------------------------------------------------------------------------------
@router.get("/report-schedules", dependencies=READ, response_model=Page[ReportScheduleOut])
async def list_report_schedules(
    parts: Parts, page: Annotated[Wanted, wanted(ReportScheduleOut, SCHEDULE_ORDERS)]
) -> Response:
    """List the reports that are sent when they are due."""
    found = await parts.catalog.report_schedules.find(page.paging)
    return page.answer([ReportScheduleOut.of(item) for item in found], found)


@router.post(
    "/report-schedules", status_code=status.HTTP_201_CREATED, dependencies=SCHEDULE, response_model=ReportScheduleOut
)
async def add_report_schedule(
    body: ReportScheduleIn, parts: Parts, caller: Caller, once: Single
) -> ReportScheduleOut | Response:
    """Have a report sent over an e-mail channel when it is due. It shows all that an administrator sees."""
    now = parts.clock.now()
    try:
        due_at = next(calendar_of(body.cron, body.timezone).after(now))
    except (ValueError, StopIteration) as error:
        raise InvalidInput(
            f"It is never due: {error}" if str(error) else "It is never due",
            next_step='Give a cron expression, such as "0 7 * * MON", and a time zone, such as Europe/Berlin.',
        ) from error

    async def add() -> ReportScheduleOut:
        channel = await parts.catalog.channels.get(body.channel)
        if channel.kind is not ChannelKind.EMAIL:
            raise InvalidInput(
                f"{body.channel!r} is a {channel.kind} channel; reports are sent by e-mail",
                next_step="Name an e-mail channel (`snapkeep notification list`), or fetch /v1/reports from a program.",
            )
        record = await parts.catalog.report_schedules.add(
            parts.clock.new_id(),
            name=body.name,
            last=body.last,
            report=body.report.value,
            form=body.form.value,
            cron=body.cron,
            timezone=body.timezone,
            system=body.system,
            channel_id=channel.id,
            made_by=caller.name,
            created_at=now,
            due_at=due_at,
        )
        return ReportScheduleOut.of(record)

    return await once.answer(add)


@router.get("/report-schedules/{name}", dependencies=READ)
async def show_report_schedule(name: str, parts: Parts) -> ReportScheduleOut:
    """Show one of them."""
    return ReportScheduleOut.of(await parts.catalog.report_schedules.get(name))


@router.delete("/report-schedules/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=SCHEDULE)
async def remove_report_schedule(name: str, parts: Parts) -> None:
    """Send a report no more. What waits already is sent."""
    await parts.catalog.report_schedules.remove(name)


@router.post("/report-schedules/{name}/send", status_code=status.HTTP_201_CREATED, dependencies=SCHEDULE,
             response_model=SentReportOut)  # fmt: skip
async def send_report(name: str, parts: Parts, once: Single) -> SentReportOut | Response:
    """Send a report now, of the period that ends now. When it is due does not change."""

    async def send() -> SentReportOut:
        schedule = await parts.catalog.report_schedules.get(name)
        delivery = await ReportSender(parts.catalog, parts.clock).send(schedule)
        if delivery is None:
            raise Conflict(
                f"The channel {schedule.channel} is off",
                next_step=f"Turn it on: `snapkeep notification set {schedule.channel} --on`.",
            )
        return SentReportOut(delivery=delivery)

    return await once.answer(send)
