"""The pure functions of nutanix-files: whatever JSON comes, nothing but an error of the tree goes."""

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapkeep.model.assets import Capability
from snapkeep.model.changes import ChangeOperation, ObjectType
from snapkeep.model.errors import Busy, Conflict, Incomplete, PermissionDenied, SnapkeepError, VendorError
from snapkeep.model.snapshots import SnapshotKind, new_snapshot_name
from snapkeep.plugin.http import Answer, _retry_after
from snapkeep.plugins.nutanix_files import assumptions, errors, mapping
from snapkeep.plugins.nutanix_files.assumptions import PathForm, decode_name, relative_path
from snapkeep.plugins.nutanix_files.client import odata_string

Json = dict[str, Any]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Any JSON."""


def objects(*keys: str) -> st.SearchStrategy[Json]:
    """Objects with some of these keys, with any values, and with other keys."""
    known = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, anything))
    return st.builds(lambda more, some: {**more, **some}, st.dictionaries(st.text(max_size=8), anything), known)


SHARE_KEYS = (
    *("extId", "name", "type", "protocol", "path", "description", "state", "statusType", "maxSizeGB"),
    *("secondaryProtocol", "parentMountTargetExtId", "isSnapshotPaused"),
)
component = st.binary(min_size=1, max_size=12).filter(lambda part: b"/" not in part and b"\0" not in part)
legal = component.filter(lambda part: part not in {b".", b".."})
paths = st.lists(legal, min_size=1, max_size=4).map(b"/".join)
share_names = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9
)


# -- arbitrary JSON ------------------------------------------------------------------------------------------------
@given(objects(*SHARE_KEYS))
@example({"extId": "1", "secondaryProtocol": 7})
@example({"extId": "1", "state": ["ONLINE"], "isSnapshotPaused": {}})
def test_any_share_is_mapped_or_a_typed_error(data: Json) -> None:
    with contextlib.suppress(SnapkeepError):
        asset = mapping.share_asset(data, "server")
        assert asset.id
        assert asset.name
        assert asset.capabilities | asset.refusals.keys() == mapping.SHARE_CAPABILITIES
        assert not asset.capabilities & asset.refusals.keys()
        assert all(isinstance(value, str) for value in asset.attributes.values())


@given(objects("extId", "name"))
def test_any_file_server_is_mapped_or_a_typed_error(data: Json) -> None:
    with contextlib.suppress(SnapkeepError):
        assert mapping.file_server_asset(data).name


@given(objects("extId", "name", "type", "createTime", "totalSpaceBytes", "reclaimableSpaceBytes"), st.text())
@example({"extId": "1", "createTime": "0001-01-01T00:00:00+10:00"}, "NB")
def test_any_snapshot_is_mapped_or_a_typed_error(data: Json, prefix: str) -> None:
    with contextlib.suppress(SnapkeepError):
        found = mapping.snapshot(data, "share", prefix)
        assert found.created_at is None or found.created_at.tzinfo is not None
        assert found.size_bytes is None or found.size_bytes >= 0


@given(
    objects(
        *("path", "oldPath", "operationType", "objectType", "sizeBytes", "inodeNumber"),
        *("creationTime", "changeTime", "accessTime"),
    ),
    st.sampled_from(["relative", "absolute"]),
)
@example({"path": "\ud800", "operationType": "ADD"}, "relative")
@example({"path": "a", "changeTime": "9999-12-31T23:59:59-10:00"}, "relative")
def test_any_change_is_mapped_or_a_typed_error(data: Json, form: PathForm) -> None:
    with contextlib.suppress(SnapkeepError):
        found = mapping.change(data, form, "share", "files1")
        assert isinstance(found.path, bytes)
        assert (found.old_path is not None) == (found.operation is ChangeOperation.RENAME)
        assert found.size >= 0


@given(st.integers(400, 599), st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_any_refusal_becomes_an_error_of_the_tree(status: int, body: bytes) -> None:
    error = errors.error_from_answer(Answer(status, {}, body), "Trying")
    assert isinstance(error, SnapkeepError)
    json.dumps(error.to_dict())


app_messages = st.lists(objects("code", "message", "argumentsMap", "severity") | anything, max_size=3) | anything
refusals = st.one_of(
    app_messages,
    objects("statusCode", "error", "validationErrorMessages"),
    st.fixed_dictionaries({"validationErrorMessages": anything}),
)


@given(refusals, st.integers(400, 599))
@example({"validationErrorMessages": 7}, 400)
@example([{"code": ["FILES-40901"], "message": 3, "argumentsMap": {"permission": ["x"]}}], 403)
def test_any_error_envelope_becomes_an_error_of_the_tree(reason: Any, status: int) -> None:
    body = json.dumps({"data": {"error": reason}}).encode()
    error = errors.error_from_answer(Answer(status, {}, body), "Trying")
    assert isinstance(error, SnapkeepError)
    json.dumps(error.to_dict())


@given(objects("errorMessages", "status", "extId", "legacyErrorMessage"))
@example({"errorMessages": 7})
@example({"errorMessages": [None, {"code": 5}]})
def test_any_failed_task_becomes_an_error_of_the_tree(task: Json) -> None:
    error = errors.error_from_task(task, "Trying")
    assert isinstance(error, SnapkeepError)
    assert str(error)
    json.dumps(error.to_dict())


@given(st.binary())
@example(b'"\\udcff"')
@example(b'"\xff"')
def test_any_body_is_json_or_a_typed_error(body: bytes) -> None:
    with contextlib.suppress(SnapkeepError):
        Answer(200, {}, body).json()


def test_a_body_that_is_nested_too_deeply_is_a_typed_error() -> None:
    with pytest.raises(VendorError) as caught:
        Answer(200, {}, b"[" * 100_000).json()
    assert len(str(caught.value)) < 1000


@given(st.text())
@example("\u00b2")
@example("9" * 5000)
@example("Fri, 31 Dec 9999 23:59:59 -1000")
def test_any_retry_after_is_seconds_or_none(value: str) -> None:
    seconds = _retry_after(Answer(429, {"retry-after": value}, b""))
    assert seconds is None or seconds >= 0


@given(st.dictionaries(st.just("date"), st.text()))
@example({"date": "Thu, 01 Jan 0001 00:00:00 +1000"})
@example({"date": "Fri, 31 Dec 9999 23:59:59 -1000"})
def test_any_date_header_is_a_date_or_none(headers: dict[str, str]) -> None:
    date = Answer(200, headers, b"").date
    assert date is None or date.tzinfo is not None


@given(objects("extraInfo"))
@example({"extraInfo": 7})
def test_any_metadata_gives_a_token_or_none(metadata: Json) -> None:
    token = assumptions.next_page_token({}, metadata)
    assert token is None or token


# -- paths ---------------------------------------------------------------------------------------------------------
@given(paths, share_names)
@example(b"new\nline/\xff\xfe", "share")
@example(b"host:/share/file", "share")
def test_every_legal_path_comes_through_in_both_forms(path: bytes, share: str) -> None:
    text = path.decode("utf-8", "surrogateescape")
    assert relative_path(decode_name(text), "relative", share, "files1") == path
    absolute = f"files1.example.com:/{share}/{text}"
    assert relative_path(decode_name(absolute), "absolute", share, "files1") == path


@given(paths.filter(lambda path: b"\\" not in path), share_names)
def test_every_legal_path_comes_through_in_the_smb_form(path: bytes, share: str) -> None:
    text = path.decode("utf-8", "surrogateescape").replace("/", "\\")
    assert relative_path(decode_name(f"\\\\FILES1\\{share}\\{text}"), "absolute", share, "files1.example.com") == path


@given(st.binary(), st.sampled_from(["relative", "absolute"]), share_names)
def test_any_bytes_are_a_clean_path_or_incomplete(path: bytes, form: PathForm, share: str) -> None:
    try:
        found = relative_path(path, form, share, "files1")
    except Incomplete:
        return
    assert not found.startswith(b"/")
    assert not found.endswith(b"/")
    assert found == b"" or not {b"", b".", b".."} & set(found.split(b"/"))


@pytest.mark.parametrize("host", ["files1", "FILES1.example.com", "files1-vm3.example.com"])
def test_the_owning_vm_is_the_file_server(host: str) -> None:
    assert relative_path(f"{host}:/share/a".encode(), "absolute", "share", "files1.example.org") == b"a"


@pytest.mark.parametrize("path", ["other:/share/a", "files1:/else/a", "files12:/share/a", "a", "/share/a", "files1:a"])
def test_paths_of_other_hosts_and_shares_are_incomplete(path: str) -> None:
    with pytest.raises(Incomplete):
        relative_path(path.encode(), "absolute", "share", "files1")


@pytest.mark.parametrize("root", ["", "/", ".", "files1:/share", "files1:/share/", "\\\\files1\\share\\"])
def test_the_root_is_the_empty_path(root: str) -> None:
    form: PathForm = "absolute" if "share" in root else "relative"
    assert relative_path(root.encode(), form, "share", "files1") == b""


@pytest.mark.parametrize("bad", ["a/../b", "a//b", "./a", "a/.", "../a"])
def test_paths_that_climb_are_incomplete(bad: str) -> None:
    with pytest.raises(Incomplete):
        relative_path(bad.encode(), "relative", "share", "files1")


# -- times and numbers ---------------------------------------------------------------------------------------------
moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


@given(moments, st.integers(-840, 840))
def test_times_come_through_in_every_zone(moment: datetime, minutes: int) -> None:
    with contextlib.suppress(OverflowError):
        text = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
        assert mapping.parse_time(text) == moment
        wanted = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
        assert mapping.to_ns(text) == (wanted if -(2**63) <= wanted < 2**63 else None)


def test_times_as_the_vendor_writes_them() -> None:
    assert mapping.to_ns("1970-01-01T00:00:01Z") == 1_000_000_000
    assert mapping.to_ns("1970-01-01T00:00:00.123456789Z") == 123_456_000
    assert mapping.parse_time("2026-01-02T03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [mapping.parse_time(value) for value in ("", "yesterday", None, 7, "2026-13-01T00:00:00Z")] == [None] * 5


@given(st.one_of(st.booleans(), st.floats(), st.text(), st.integers(max_value=-1), st.none()))
def test_a_size_that_is_none_is_unknown(value: object) -> None:
    assert mapping.snapshot({"extId": "1", "totalSpaceBytes": value}, "share", "NB").size_bytes is None


# -- words and names -----------------------------------------------------------------------------------------------
@given(st.text())
def test_unknown_words_are_unknown(word: str) -> None:
    if word in mapping.OPERATIONS or word in mapping.OBJECT_TYPES or word in mapping.SNAPSHOT_KINDS:
        return
    change = mapping.change({"path": "a", "operationType": word, "objectType": word}, "relative", "s", "h")
    assert (change.operation, change.type) == (ChangeOperation.UNKNOWN, ObjectType.OTHER)
    assert mapping.snapshot({"extId": "1", "type": word}, "share", "NB").kind is SnapshotKind.UNKNOWN


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,19}", fullmatch=True),
    st.datetimes(datetime(2002, 1, 1), datetime(2286, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - 16 digits of µs
)
def test_names_that_we_make_are_ours(prefix: str, now: datetime) -> None:
    name = new_snapshot_name(prefix, now)
    assert mapping.snapshot({"extId": "1", "name": name, "type": "USER_SNAPSHOT"}, "share", prefix).owned
    assert not mapping.snapshot({"extId": "1", "name": name, "type": "SSR_SNAPSHOT"}, "share", prefix).owned
    assert len(name) == len(prefix) + 21


@given(st.text())
def test_odata_strings_cannot_be_left(value: str) -> None:
    literal = odata_string(value)
    assert literal[0] == literal[-1] == "'"
    assert literal[1:-1].replace("''", "") == value.replace("'", "")


def test_nested_offline_and_paused_shares_say_what_they_lack() -> None:
    nested = mapping.share_asset({"extId": "1", "name": "n", "parentMountTargetExtId": "0"}, "server")
    assert (nested.parent_id, nested.capabilities) == ("0", frozenset())
    offline = mapping.share_asset({"extId": "1", "name": "n", "state": "OFFLINE"}, "server")
    assert offline.capabilities == {Capability.DELETE}
    paused = mapping.share_asset({"extId": "1", "name": "n", "isSnapshotPaused": True}, "server")
    assert mapping.SHARE_CAPABILITIES - paused.capabilities == {Capability.CREATE, Capability.DIFF_FILES}


# -- errors --------------------------------------------------------------------------------------------------------
def refusal(status: int, code: str, **arguments: str) -> SnapkeepError:
    message = {"code": code, "message": "words", "argumentsMap": arguments}
    return errors.error_from_answer(Answer(status, {}, json.dumps({"data": {"error": [message]}}).encode()), "Trying")


def test_a_code_says_more_than_its_status() -> None:
    codes = {kind: code for code, kind in assumptions.ERROR_CODES.items()}
    assert isinstance(refusal(409, codes[Busy]), Busy)
    assert type(refusal(409, "FILES-00000")) is Conflict
    assert type(refusal(418, "FILES-00000")) is VendorError


def test_a_refusal_keeps_code_text_and_the_missing_right() -> None:
    error = refusal(403, "FILES-1", permission="Create_Mount_Target_Snapshot")
    assert isinstance(error, PermissionDenied)
    assert error.details["needed"] == "Create_Mount_Target_Snapshot"
    assert (error.vendor_code, error.vendor_message) == ("FILES-1", "words")


@pytest.mark.parametrize(
    ("entities", "made"),
    [
        ([{"extId": "a", "rel": "files:config:mount-target"}, {"extId": "b", "rel": "files:config:snapshot"}], "b"),
        ([{"extId": "a"}], "a"),
        ([{"extId": "a"}, {"extId": "b"}], None),
        ([], None),
    ],
)
def test_what_a_task_made(entities: list[Json], made: str | None) -> None:
    assert assumptions.created_entity(entities, "snapshot") == made
