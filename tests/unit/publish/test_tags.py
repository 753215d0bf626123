"""Moving tags in a registry: what stays, what moves, what is refused, and in which order."""

from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput, TagConflict
from soci_pipeline.oci.annotations import REVISION
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.publish.tags import Outcome, check_tags_before_build, move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ImmutableTag, ManifestUnknown
from soci_pipeline.registry.manifests import Manifests
from soci_pipeline.registry.server import ServerSettings, serving
from soci_pipeline.registry.tag_mutability import TagMutability
from tests.support.faults import FaultPlan
from tests.support.images import AMD64, add_image, gzip_layer
from tests.support.published import REPOSITORY, stored, upload
from tests.support.registries import AT_ONCE, registry

OLD, NEW, OTHER = "1" * 40, "2" * 40, "3" * 40
IMMUTABLE = TagMutability.of("IMMUTABLE")


def ancestry(first: str, second: str) -> bool | None:
    """A history of two commits, and one that nobody knows."""
    return None if OTHER in (first, second) else (first, second) == (OLD, NEW)


def index_of(client: RegistryClient, layout: Layout, revision: str | None, note: str = "") -> Descriptor:
    annotations = {"note": note} | ({REVISION: revision} if revision else {})
    root = layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64),), annotations=annotations))
    upload(client, layout, root)
    return root


def tags_of(client: RegistryClient) -> dict[str, str]:
    found = {tag: client.manifests.head(REPOSITORY, tag) for tag in client.tags.list(REPOSITORY)}
    return {tag: descriptor.digest for tag, descriptor in found.items() if descriptor}


def test_new_tags_are_written_and_a_second_time_nothing_is(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    index = index_of(client, layout, OLD)

    first = move_tags(client, REPOSITORY, index, ["v1", "main", "v1"])
    state = (stored(tmp_path / "registry").path / "index.json").stat().st_mtime_ns
    second = move_tags(client, REPOSITORY, index, ["v1", "main"], mutability=IMMUTABLE)

    assert [(each.tag, each.outcome, each.previous) for each in first] == [
        ("v1", Outcome.WRITTEN, None),
        ("main", Outcome.WRITTEN, None),
    ]
    assert [each.outcome for each in second] == [Outcome.UNCHANGED, Outcome.UNCHANGED]
    assert (stored(tmp_path / "registry").path / "index.json").stat().st_mtime_ns == state
    assert tags_of(client) == {"v1": index.digest, "main": index.digest}


def test_a_mutable_tag_moves_and_says_where_it_was(client: RegistryClient, layout: Layout) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    move_tags(client, REPOSITORY, old, ["main"])

    (record,) = move_tags(client, REPOSITORY, new, ["main"], ancestry=ancestry)

    assert (record.digest, record.previous, record.outcome) == (new.digest, old.digest, Outcome.WRITTEN)


def test_another_digest_under_an_immutable_tag_is_a_conflict_and_no_other_tag_moves(
    client: RegistryClient, layout: Layout
) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    move_tags(client, REPOSITORY, old, ["v1", "v2", "main"])
    rule = TagMutability.of("IMMUTABLE_WITH_EXCLUSION", ["main", "next"])

    with pytest.raises(TagConflict) as caught:
        move_tags(client, REPOSITORY, new, ["next", "main", "v1", "v2"], mutability=rule)

    assert "v1 is immutable" in caught.value.reason
    assert "v2 is immutable" in caught.value.reason
    assert tags_of(client) == dict.fromkeys(("v1", "v2", "main"), old.digest)


def test_a_conflict_of_the_index_leaves_the_tags_of_its_platforms_where_they_are(
    client: RegistryClient, layout: Layout
) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    platform = add_image(layout, AMD64, [gzip_layer({"new": b"1"})])
    upload(client, layout, platform)
    move_tags(client, REPOSITORY, old, ["v1"])

    with pytest.raises(TagConflict, match="v1 is immutable"):
        move_tags(client, REPOSITORY, new, ["v1"], mutability=IMMUTABLE, others={"v1-amd64": platform})
    assert tags_of(client) == {"v1": old.digest}


def test_a_conflict_of_a_platform_leaves_the_tags_of_the_index_where_they_are(
    client: RegistryClient, layout: Layout
) -> None:
    index = index_of(client, layout, NEW)
    platforms = [add_image(layout, AMD64, [gzip_layer({"file": data})]) for data in (b"1", b"2")]
    upload(client, layout, *platforms)
    move_tags(client, REPOSITORY, index, [], others={"v1-amd64": platforms[0]})

    with pytest.raises(TagConflict, match="v1-amd64 is immutable"):
        move_tags(client, REPOSITORY, index, ["v1"], mutability=IMMUTABLE, others={"v1-amd64": platforms[1]})
    assert tags_of(client) == {"v1-amd64": platforms[0].digest}


def test_tags_of_platforms_are_written_before_the_index_and_mutable_ones_last(tmp_path: Path, layout: Layout) -> None:
    plan = FaultPlan()
    with serving(tmp_path / "faulty", middleware=plan.middleware) as address, RegistryClient(address) as client:
        index, platform = index_of(client, layout, NEW), add_image(layout, AMD64, [gzip_layer({"new": b"1"})])
        upload(client, layout, platform)
        old = index_of(client, layout, OLD)
        move_tags(client, REPOSITORY, old, ["latest"], others={"latest-amd64": platform})
        rule = TagMutability.of("IMMUTABLE_WITH_EXCLUSION", ["latest*"])
        others = {"latest-amd64": add_image(layout, AMD64), "v1-amd64": platform}
        plan.replace([])
        moved = move_tags(client, REPOSITORY, index, ["latest", "v1"], mutability=rule, others=others)
    assert [each.tag for each in moved] == ["latest", "v1", "latest-amd64", "v1-amd64"]
    written = [path.rpartition("/")[2] for method, path in plan.requests if method == "PUT"]
    assert written == ["v1-amd64", "v1", "latest-amd64", "latest"]


def test_one_tag_for_two_manifests_is_refused(client: RegistryClient, layout: Layout) -> None:
    index, platform = index_of(client, layout, NEW), add_image(layout, AMD64)
    with pytest.raises(InvalidInput, match="v1-amd64"):
        move_tags(client, REPOSITORY, index, ["v1", "v1-amd64"], others={"v1-amd64": platform})


def test_force_moves_no_immutable_tag(client: RegistryClient, layout: Layout) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    move_tags(client, REPOSITORY, old, ["v1"])

    with pytest.raises(TagConflict):
        move_tags(client, REPOSITORY, new, ["v1"], mutability=IMMUTABLE, force=True)


def test_an_older_commit_does_not_replace_a_newer_one_unless_told_to(client: RegistryClient, layout: Layout) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    move_tags(client, REPOSITORY, new, ["main"])

    with pytest.raises(TagConflict, match="newer than"):
        move_tags(client, REPOSITORY, old, ["main", "v1"], ancestry=ancestry)
    assert tags_of(client) == {"main": new.digest}
    forced = move_tags(client, REPOSITORY, old, ["main"], ancestry=ancestry, force=True)
    assert forced[0].outcome is Outcome.WRITTEN


@pytest.mark.parametrize("there", [OLD, OTHER, None])
def test_the_same_an_unknown_and_an_unnamed_commit_may_be_replaced(
    client: RegistryClient, layout: Layout, there: str | None
) -> None:
    before, after = index_of(client, layout, there, "before"), index_of(client, layout, OLD, "after")
    move_tags(client, REPOSITORY, before, ["main"])

    assert move_tags(client, REPOSITORY, after, ["main"], ancestry=ancestry)[0].outcome is Outcome.WRITTEN


def test_immutable_tags_are_written_first_and_tags_that_move_last(client: RegistryClient, layout: Layout) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    move_tags(client, REPOSITORY, old, ["main"])
    order: list[str] = []

    class Watching(Manifests):
        def put(self, repository: str, reference: str, data: bytes, media_type: str) -> Descriptor:
            order.append(reference)
            return super().put(repository, reference, data, media_type)

    rule = TagMutability.of("MUTABLE_WITH_EXCLUSION", ["v*"])
    with RegistryClient(client.registry) as watching:
        watching.manifests = Watching(watching._operations)
        records = move_tags(watching, REPOSITORY, new, ["main", "dev", "v2"], mutability=rule)

    assert order == ["v2", "dev", "main"]
    assert [each.tag for each in records] == ["main", "dev", "v2"]


def test_a_tag_that_another_run_took_meanwhile_is_a_conflict(client: RegistryClient, layout: Layout) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)

    class Overtaken(Manifests):
        asked = 0

        def head(self, repository: str, reference: str) -> Descriptor | None:
            self.asked += 1
            if self.asked == 2:
                move_tags(client, REPOSITORY, new, ["main"])
            return super().head(repository, reference)

    with RegistryClient(client.registry) as late:
        late.manifests = Overtaken(late._operations)
        with pytest.raises(TagConflict, match="newer than"):
            move_tags(late, REPOSITORY, old, ["main"], ancestry=ancestry)
    assert tags_of(client) == {"main": new.digest}


def test_a_registry_that_forbids_the_move_itself_is_a_conflict_too(tmp_path: Path, layout: Layout) -> None:
    settings = ServerSettings(immutable=lambda tag: tag == "v1")
    with registry(tmp_path / "strict", server=settings, settings=AT_ONCE) as client:
        old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
        move_tags(client, REPOSITORY, old, ["v1"])

        with pytest.raises(ImmutableTag):
            move_tags(client, REPOSITORY, new, ["v1"])


def test_an_index_that_is_not_in_the_repository_gets_no_tag(client: RegistryClient, layout: Layout) -> None:
    index_of(client, layout, OLD)
    absent = layout.add_document(ImageIndex())

    with pytest.raises(ManifestUnknown):
        move_tags(client, REPOSITORY, absent, ["main"])
    with pytest.raises(InvalidInput, match="not a valid tag"):
        move_tags(client, REPOSITORY, absent, ["no/tag"])


def test_conflicts_that_can_be_known_are_named_before_the_build(client: RegistryClient, layout: Layout) -> None:
    move_tags(client, REPOSITORY, index_of(client, layout, NEW), ["v1", "main"])

    def check(revision: str, tags: list[str], **more: object) -> None:
        rule = TagMutability.of("MUTABLE_WITH_EXCLUSION", ["v*"])
        options: dict[str, object] = {"mutability": rule, "ancestry": ancestry} | more
        check_tags_before_build(client, REPOSITORY, tags, revision=revision, **options)  # type: ignore[arg-type]

    check(NEW, ["v1", "main", "v2"])
    check(OTHER, ["main"])
    check(OLD, ["main"], force=True)
    with pytest.raises(TagConflict, match="v1 is immutable"):
        check(OTHER, ["v1"])
    with pytest.raises(TagConflict, match=r"main holds .* newer than"):
        check(OLD, ["main"])


def test_a_tag_that_is_new_hides_no_conflict_of_another(client: RegistryClient, layout: Layout) -> None:
    move_tags(client, REPOSITORY, index_of(client, layout, NEW), ["v1"])
    with pytest.raises(TagConflict, match=f"v1 is immutable and holds .*, made from {NEW}"):
        check_tags_before_build(client, REPOSITORY, ["v2", "v1"], revision=OLD, mutability=IMMUTABLE)


def test_an_immutable_tag_of_an_unknown_commit_is_a_conflict_before_the_build(
    client: RegistryClient, layout: Layout
) -> None:
    move_tags(client, REPOSITORY, index_of(client, layout, None), ["v1"])
    with pytest.raises(TagConflict, match="made from an unknown commit"):
        check_tags_before_build(client, REPOSITORY, ["v1"], revision=OLD, mutability=IMMUTABLE)


def test_a_repository_that_is_not_there_yet_has_no_conflicts(client: RegistryClient) -> None:
    check_tags_before_build(client, "nobody/nothing", ["v1"], revision=OLD, mutability=IMMUTABLE)


def test_the_last_word_comes_when_all_else_is_checked_and_before_the_first_tag(
    client: RegistryClient, layout: Layout
) -> None:
    old, new = index_of(client, layout, OLD), index_of(client, layout, NEW)
    move_tags(client, REPOSITORY, old, ["main"])
    order: list[str] = []

    def compare(first: str, second: str) -> bool | None:
        order.append("commits compared")
        return ancestry(first, second)

    def refuse() -> None:
        order.append("asked")
        raise InvalidInput("not any more")

    with pytest.raises(InvalidInput, match="not any more"):
        move_tags(client, REPOSITORY, new, ["v1", "main"], ancestry=compare, confirm=refuse)
    assert order == ["commits compared", "asked"]
    assert tags_of(client) == {"main": old.digest}
