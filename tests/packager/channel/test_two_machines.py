"""Two machines that publish to one channel at once: none loses in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet import NAME, follow, small_release, take_update

from edgepack.channel import releases, site
from edgepack_runtime.errors import EdgepackError, TrustError

if TYPE_CHECKING:
    from server import Server


@pytest.mark.parametrize("at", [1, 2])
def test_of_two_machines_that_publish_at_once_one_hears_of_it(
    tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before the targets or the snapshot that one uploads, another publishes: that stays."""
    web.knows_conditions = True
    own, rollout = tmp_path / "keys", releases.Rollout()
    releases.publish(small_release(tmp_path, 1), web.url, own, rollout)
    shutil.copytree(own, tmp_path / "other")
    theirs = small_release(tmp_path, 4)

    def races() -> None:
        releases.publish(theirs, web.url, tmp_path / "other", rollout)

    with monkeypatch.context() as patch:
        _before_upload(at, races, patch)
        with pytest.raises(EdgepackError, match="written by another machine meanwhile"):
            releases.publish(small_release(tmp_path, 3), web.url, own, rollout)
    assert take_update(follow(tmp_path / "device", web.url)) == theirs.digest
    releases.refresh(web.url, own)
    releases.refresh(web.url, tmp_path / "other")
    assert releases.releases(web.url)[NAME]["release"] == 4


def test_a_server_without_conditions_loses_nothing_in_silence(
    tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an upload goes over the other's file, both machines say so."""
    own, rollout = tmp_path / "keys", releases.Rollout()
    releases.publish(small_release(tmp_path, 1), web.url, own, rollout)
    shutil.copytree(own, tmp_path / "other")

    def races() -> None:
        releases.publish(small_release(tmp_path, 2), web.url, tmp_path / "other", rollout)

    with monkeypatch.context() as patch:
        _before_upload(1, races, patch)
        with pytest.raises(EdgepackError, match="written by another machine meanwhile"):
            releases.publish(small_release(tmp_path, 3), web.url, own, rollout)
    with pytest.raises(TrustError, match="another machine signed with the same keys"):
        releases.refresh(web.url, tmp_path / "other")


def _before_upload(at: int, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Act between the look at the place of a metadata file, the first being 1, and its upload."""
    put, puts = site.UrlSite._put, 0

    def races(self: site.UrlSite, path: str, content: bytes, *, new: bool = False) -> None:
        nonlocal puts
        if "/metadata/" in path:
            puts += 1
            if puts == at:
                act()
        put(self, path, content, new=new)

    patch.setattr(site.UrlSite, "_put", races)
