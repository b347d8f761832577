"""The JSON of the REST API, in and out: what all of it shares. Each noun has a file of its own."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

T = TypeVar("T")
SystemName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]


class In(BaseModel):
    """What is asked for; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """Take no text for a number, and neither for true or false: the description says that there is none."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind in {bool, bool | None} and not isinstance(value, bool | None):
            raise ValueError("true or false is expected")
        if kind in {int, int | None, float, float | None} and isinstance(value, bool | str):
            raise ValueError("a number is expected")
        return value


class Out(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


class Page(Out, Generic[T]):
    """Some entries; `next` is the cursor of the page behind it, null on the last one."""

    data: list[T]
    next: str | None = None


class LabelsIn(In):
    """All the labels that a system or an asset shall have."""

    labels: dict[str, str]


class LabelsOut(Out):
    """The labels of a system or an asset."""

    labels: dict[str, str]


class WouldOut(Out):
    """What a dry run has found: nothing stands against it, and nothing was done."""

    would: str
    affected: list[str] = Field(description="What it would be done to.")


class Problem(Out):
    """An error: `application/problem+json` (RFC 9457)."""

    type: str = Field(description="`urn:snapkeep:error:` and the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; see the reference of errors.")
    message: str
    next_step: str = Field(description="What to do about it.")
    vendor_code: str | None = Field(description="The system's own code.")
    vendor_message: str | None = Field(description="The system's own reason.")
    details: dict[str, Any]
    request_id: str | None = Field(description="Names this request in the log; also the header `X-Request-Id`.")
