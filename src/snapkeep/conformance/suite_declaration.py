"""What a plug-in says about itself."""

from __future__ import annotations

import re
from typing import Any

import pytest

from snapkeep.conformance.acts import connected, played, promise, request_id
from snapkeep.conformance.target import Circumstance, Target
from snapkeep.model.assets import Capability
from snapkeep.model.errors import InvalidInput
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.settings import SystemSettings

ROLE_OF = {
    Capability.DISCOVER: "discover",
    Capability.CREATE: "create",
    Capability.DELETE: "delete",
    Capability.RESTORE: "restore",
    Capability.CLONE: "clone",
    Capability.EXPORT: "export",
    Capability.DIFF_FILES: "diff_files",
    Capability.QUIESCE: "quiesce",
}
"""The role that plays a capability."""

_SECRET = re.compile(r"password|secret|token|passphrase|api_?key|private_?key")


@promise()
async def test_the_plugin_has_a_name_for_people_and_one_for_machines(target: Target) -> None:
    """The name is lower case with dashes, as it stands in settings and addresses; the title is not empty."""
    assert isinstance(target.plugin, Plugin)
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,39}", target.plugin.name)
    assert target.plugin.title.strip()


@promise()
async def test_the_declared_capabilities_are_those_of_the_roles(target: Target) -> None:
    """A role is played exactly when its capability is declared."""
    declared = target.plugin.all_capabilities()
    async with target.connect() as roles:
        played = {capability for capability, name in ROLE_OF.items() if getattr(roles, name) is not None}
    assert played == declared & ROLE_OF.keys()
    assert Capability.DISCOVER in declared


@promise()
async def test_no_asset_has_more_than_its_kind_declares(target: Target) -> None:
    """An asset's capabilities are among those that the plug-in declares for its kind."""
    await target.fresh_asset()
    async with connected(target) as hand:
        assets, _ = await hand.everything()
    for asset in assets:
        assert asset.capabilities <= target.plugin.capabilities[asset.kind], asset.name


@promise()
async def test_what_an_asset_lacks_is_explained(target: Target) -> None:
    """For each capability that other assets of its kind have, an asset has it or says why not."""
    asset = await target.unsupported_asset()
    assert not asset.capabilities
    for capability in target.plugin.capabilities[asset.kind]:
        assert asset.refusals[capability].strip()


@promise()
async def test_permissions_are_declared_for_each_capability(target: Target) -> None:
    """People are told which rights the account needs, for each capability and for nothing else."""
    declared = target.plugin.all_capabilities()
    assert target.plugin.permissions.keys() == declared
    assert all(rights and all(right.strip() for right in rights) for rights in target.plugin.permissions.values())


@promise()
async def test_the_declared_rights_are_enough(target: Target) -> None:
    """An account with the declared rights, and no other, can do everything that is declared."""
    asset = await target.fresh_asset()
    declared = target.plugin.all_capabilities() - target.inapplicable.keys()
    async with connected(target, **await target.arrange(Circumstance.LEAST_ACCOUNT)) as hand:
        await hand.everything()
        if Capability.CREATE not in declared:
            return
        base, new = await hand.create(asset), await hand.create(asset)
        if Capability.DIFF_FILES in declared:
            await hand.diff(asset, base, new)
        if Capability.EXPORT in declared:
            await hand.export(asset, new)
            for export in await hand.open_exports(asset):
                await hand.deport(export)
        if Capability.CLONE in declared:
            await hand.clone(asset, base, f"{asset.name}-clone")
        if Capability.RESTORE in declared:
            await hand.restore(asset, base)
        if Capability.DELETE in declared:
            await hand.delete(asset, new)
        if Capability.QUIESCE in declared:
            quiescent = await target.quiescent_asset()
            async with played(hand.roles.quiesce).quiesced(quiescent, 30.0, request_id()) as held:
                assert await held.release() is None


@promise()
async def test_every_setting_is_described(target: Target) -> None:
    """Each setting has a description that says more than its name."""
    assert issubclass(target.plugin.settings, SystemSettings)
    for name, field in target.plugin.settings.model_fields.items():
        assert field.description and len(field.description) > len(name), name


@promise()
async def test_secrets_are_marked_as_such(target: Target) -> None:
    """A setting that sounds like a secret is one, so that it is stored encrypted and never shown."""
    secret = target.plugin.settings.secret_fields()
    for name in target.plugin.settings.model_fields:
        assert name in secret or not _SECRET.search(name), f"{name} is not a SecretStr"


@promise()
async def test_secrets_are_kept_apart_and_never_printed(target: Target) -> None:
    """Settings survive storing, secrets lie apart, and neither `repr` nor the plain part shows one."""
    settings = target.plugin.settings.parse(target.settings())
    plain, hidden = settings.dump()
    assert hidden.keys() == {name for name in target.settings() if name in settings.secret_fields()}
    assert target.plugin.settings.parse({**plain, **hidden}) == settings
    for secret in hidden.values():
        assert secret not in repr(settings)
        assert secret not in repr(plain)


@promise()
async def test_an_unknown_setting_is_refused_by_name(target: Target) -> None:
    """A setting that is misspelt is named in the error; values, which may be secret, are not."""
    data: dict[str, Any] = {**target.settings(), "colour_of_the_rack": "a very secret colour"}
    with pytest.raises(InvalidInput, match="colour_of_the_rack") as caught:
        target.plugin.settings.parse(data)
    assert "secret colour" not in str(caught.value) + repr(caught.value.to_dict())
