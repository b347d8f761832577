"""Made-up sizes: thousands of shares without directories, and a million changed entries without a list.

An entry of a made-up difference follows from its index alone, so that any page of it is at hand at once.
"""

from collections.abc import Iterator
from json.encoder import encode_basestring_ascii

from snapkeep.simulators.nutanix_files.entries import PathForm
from snapkeep.simulators.nutanix_files.model import FileServer, Share, Snapshot, SyntheticDiff
from snapkeep.simulators.nutanix_files.state import State, new_id

FILES_IN_DIRECTORY = 1_000
_OPERATIONS = ("ADD", "MODIFY", "MODIFY", "META_MODIFY", "DELETE")


def diff_id(base: str, new: str) -> str:
    """The key of a made-up difference."""
    return f"{base}/{new}"


def make_shares(state: State, server: FileServer, shares: int, snapshots_per_share: int) -> list[Share]:
    """Metadata of many shares with snapshots. In the caller's transaction."""
    first = len(state.shares[server.id])
    made = [
        Share(
            id=new_id(),
            file_server=server.id,
            name=f"synthetic-{first + number:06d}",
            synthetic=True,
            last_sequence=snapshots_per_share,
        )
        for number in range(shares)
    ]
    now = state.now()
    snapshots = [
        Snapshot(
            id=new_id(),
            share=share.id,
            name=f"daily-{number:04d}",
            type="SSR_SNAPSHOT",
            created=now - 86_400.0 * (snapshots_per_share - number + 1),
            sequence=number,
            bytes=number * 1_000_000,
        )
        for share in made
        for number in range(1, snapshots_per_share + 1)
    ]
    state.save_many([*made, *snapshots])
    return made


def make_diff(state: State, share: Share, count: int) -> tuple[Snapshot, Snapshot]:
    """Two snapshots whose difference has ``count`` entries. In the caller's transaction."""
    pair = []
    for moment in (-60.0, 0.0):
        share.last_sequence += 1
        pair.append(
            Snapshot(
                id=new_id(),
                share=share.id,
                name=f"synthetic-{share.last_sequence:04d}",
                created=state.now() + moment,
                sequence=share.last_sequence,
            )
        )
    base, new = pair
    key = diff_id(base.id, new.id)
    state.save_many([share, base, new, SyntheticDiff(id=key, base=base.id, new=new.id, entries=count)])
    return base, new


def entries(begin: int, end: int, form: PathForm) -> Iterator[bytes]:
    """The entries of a made-up difference from ``begin`` up to ``end``."""
    for index in range(begin, end):
        path = form.write(b"set-%06d/file-%09d.dat" % (index // FILES_IN_DIRECTORY, index))
        operation = _OPERATIONS[index % len(_OPERATIONS)]
        yield (
            f'{{"path":{encode_basestring_ascii(path)},"operationType":"{operation}","objectType":"FILE"'
            f',"sizeBytes":{index * 7 % 1_000_003},"inodeNumber":{index + 1_000}'
            ',"creationTime":"2026-01-01T00:00:00.000000Z","changeTime":"2026-01-02T00:00:00.000000Z"'
            ',"accessTime":"2026-01-02T00:00:00.000000Z"'
            ',"$objectType":"files.v4.config.ChangedContent","$reserved":{"$fv":"v4.r0"}}'
        ).encode()
