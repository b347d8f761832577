"""Every test of the suite: `from snapkeep.conformance.suite import *` in a test file that has a fixture `target`."""

from __future__ import annotations

from snapkeep.conformance.suite_clone import *  # noqa: F403
from snapkeep.conformance.suite_connect import *  # noqa: F403
from snapkeep.conformance.suite_create import *  # noqa: F403
from snapkeep.conformance.suite_declaration import *  # noqa: F403
from snapkeep.conformance.suite_delete import *  # noqa: F403
from snapkeep.conformance.suite_diff import *  # noqa: F403
from snapkeep.conformance.suite_diff_hostile import *  # noqa: F403
from snapkeep.conformance.suite_discover import *  # noqa: F403
from snapkeep.conformance.suite_export import *  # noqa: F403
from snapkeep.conformance.suite_hostility import *  # noqa: F403
from snapkeep.conformance.suite_quiesce import *  # noqa: F403
from snapkeep.conformance.suite_refusals import *  # noqa: F403
from snapkeep.conformance.suite_restore import *  # noqa: F403
from snapkeep.conformance.suite_rights import *  # noqa: F403
