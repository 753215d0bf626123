"""The plan of a retention run, and a simulator that deletes by it step by step on random repositories."""

import re
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.retention.prune_plan import KeepRules, Node, PrunePlan, RepositoryGraph, attached_to, plan_prune
from tests.support.examples import examples

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def name(text: str) -> Digest:
    return Digest.of(text.encode())


def node(
    text: str, *children: str, subject: str | None = None, days: float | None = 1.0, by_days: datetime = NOW
) -> Node:
    return Node(
        digest=name(text),
        children=tuple(name(child) for child in children),
        subject=name(subject) if subject else None,
        created=None if days is None else by_days - timedelta(days=days),
    )


def graph_of(tags: dict[str, str], *nodes: Node) -> RepositoryGraph:
    return RepositoryGraph(
        tags={tag: name(target) for tag, target in tags.items()}, nodes={each.digest: each for each in nodes}
    )


def planned(graph: RepositoryGraph, **rules: object) -> PrunePlan:
    return plan_prune(graph, KeepRules.of(**rules), now=NOW)


TWO_RELEASES = graph_of(
    {"v1": "index1", "v2": "index2", "v1-amd64": "amd1", "main": "index2"},
    node("index1", "amd1", "arm", "attestation1", "soci1", days=30),
    node("index2", "amd2", "arm", "soci2", days=1),
    node("amd1", "soci1", days=30),
    node("amd2", "soci2", days=1),
    node("arm", "soci-arm"),
    node("soci1"),
    node("soci2"),
    node("soci-arm"),
    node("attestation1"),
    node("provenance1", subject="index1"),
    node("provenance2", subject="index2"),
    node("signature2", subject="provenance2"),
)


def test_what_a_kept_tag_needs_stays_and_the_rest_goes() -> None:
    made = planned(TWO_RELEASES, tags=("v2",))

    assert made.kept_tags == ("v2",)
    assert made.untag == ("main",)
    assert made.deleted_tags == ("v1", "v1-amd64")
    expected = {"index2", "amd2", "arm", "soci2", "soci-arm", "provenance2", "signature2"}
    assert set(made.kept_manifests) == {name(each) for each in expected}
    assert made.manifests[0] == name("index1")
    assert set(made.manifests) == {name(each) for each in ("index1", "amd1", "soci1", "attestation1", "provenance1")}
    assert made.manifests.index(name("amd1")) < made.manifests.index(name("soci1"))


def test_every_tag_and_digest_has_a_reason() -> None:
    made = planned(TWO_RELEASES, tags=("v2",))

    assert set(made.reasons) == {*TWO_RELEASES.tags, *(str(digest) for digest in TWO_RELEASES.nodes)}
    assert set(made.kept) | set(made.deleted) == set(made.reasons)
    assert made.reasons["v2"] == "matches the pattern v2"
    assert made.reasons[str(name("soci2"))] in {f"part of {name('amd2')}", f"part of {name('index2')}"}
    assert made.reasons[str(name("signature2"))] == f"refers to {name('provenance2')}"


def test_a_tag_on_a_manifest_that_another_tag_needs_is_only_taken_off() -> None:
    made = planned(TWO_RELEASES, tags=("v1",))

    assert made.untag == ("v1-amd64",)
    assert name("amd1") in made.kept_manifests


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"tags": ("v*",)}, ["v1", "v1-amd64", "v2"]),
        ({"tags": ("v?",)}, ["v1", "v2"]),
        ({"latest": 1}, ["main", "v2"]),
        ({"younger_than": timedelta(days=7)}, ["main", "v2"]),
        ({"younger_than": timedelta(days=31)}, ["main", "v1", "v1-amd64", "v2"]),
        ({"digests": [name("index1")]}, ["v1"]),
        ({"digests": [name("elsewhere")]}, []),
        ({"latest": 1, "tags": ("v1",)}, ["main", "v1", "v2"]),
    ],
)
def test_each_rule_keeps_its_tags(rules: dict[str, object], kept: list[str]) -> None:
    assert list(planned(TWO_RELEASES, **rules).kept_tags) == kept


def test_an_image_in_use_by_digest_is_kept_without_its_index() -> None:
    made = planned(TWO_RELEASES, digests=[name("amd1")])

    assert {name("amd1"), name("soci1")} <= set(made.kept_manifests)
    assert name("index1") in made.manifests
    assert made.reasons[str(name("amd1"))] == "its digest is in use"


def test_an_image_of_unknown_age_is_kept_where_age_decides() -> None:
    graph = graph_of({"old": "a", "unknown": "b"}, node("a", days=99), node("b", days=None))

    assert planned(graph, younger_than=timedelta(days=1)).kept_tags == ("unknown",)
    assert planned(graph, latest=1).kept_tags == ("old", "unknown")
    assert planned(graph, tags=("old",)).kept_tags == ("old",)


def test_fallback_and_signature_tags_live_as_long_as_what_they_belong_to() -> None:
    kept, gone = f"sha256-{name('image').hex}", f"sha256-{name('old').hex}"
    graph = graph_of(
        {"v1": "image", "v0": "old", kept: "list", gone: "list0", f"{kept}.sig": "signature"},
        node("image"),
        node("old"),
        node("list", "soci"),
        node("list0", "soci0"),
        node("soci", subject="image"),
        node("soci0", subject="old"),
        node("signature"),
    )

    made = planned(graph, tags=("v1",))

    assert set(made.kept_tags) == {"v1", kept, f"{kept}.sig"}
    assert made.manifests == (name("old"), name("list0"), name("soci0"))
    assert attached_to("sha256-abc") is None
    assert attached_to(f"{kept}.sig") == name("image")


def test_a_fallback_tag_alone_keeps_nothing() -> None:
    graph = graph_of({f"sha256-{name('gone').hex}": "list"}, node("list", "soci"), node("soci", subject="gone"))

    assert set(planned(graph, tags=("*",)).manifests) == {name("list"), name("soci")}


def test_a_fallback_tag_of_a_digest_in_use_stays_though_no_tag_reaches_that_digest() -> None:
    tag = f"sha256-{name('running').hex}"
    graph = graph_of({tag: "list"}, node("list", "soci"), node("soci", subject="running"))

    made = planned(graph, digests=frozenset({name("running")}))

    assert made.kept_tags == (tag,)
    assert made.manifests == ()


def test_a_kept_referrer_keeps_its_subject() -> None:
    graph = graph_of({"keep": "referrer"}, node("referrer", subject="image"), node("image", "soci"), node("soci"))

    assert planned(graph, tags=("keep",)).manifests == ()


def test_no_rule_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        KeepRules.of()
    assert caught.value.reason == (
        "not a valid retention rule: there is no rule for what to keep, so everything would be deleted"
    )
    for option in ("--keep", "--keep-latest", "--keep-days", "--keep-in-use"):
        parameter = option.removeprefix("--").replace("-", "_")
        assert {f"`{option}`", f"`{parameter}`"} <= set(re.findall("`[^`]+`", str(caught.value.advice)))


@st.composite
def repositories(draw: st.DrawFn) -> RepositoryGraph:
    """Random repositories: a manifest's children have a lower number (digests allow no cycle); subjects may be any."""
    count = draw(st.integers(1, 14))
    nodes = []
    for number in range(count):
        children = draw(st.lists(st.integers(0, number - 1), max_size=4, unique=True)) if number else []
        subject = draw(st.none() | st.integers(0, number - 1)) if number else None
        days = draw(st.none() | st.integers(0, 60))
        nodes.append(
            node(str(number), *map(str, children), subject=None if subject is None else str(subject), days=days)
        )
    plain = draw(st.dictionaries(st.sampled_from(["a", "b", "c", "ab", "v1", "v2"]), st.integers(0, count - 1)))
    attached = draw(st.dictionaries(st.integers(0, count), st.integers(0, count - 1), max_size=3))
    tags = {tag: str(target) for tag, target in plain.items()}
    tags |= {f"sha256-{name(str(subject)).hex}": str(target) for subject, target in attached.items()}
    return graph_of(tags, *nodes)


rules_of = st.builds(
    KeepRules,
    tags=st.lists(st.sampled_from(["a", "a*", "v?", "x"]), min_size=1, max_size=2).map(tuple),
    latest=st.integers(0, 2),
    younger_than=st.none() | st.just(timedelta(days=20)),
    digests=st.frozensets(st.integers(0, 14).map(lambda number: name(str(number))), max_size=2),
)


@dataclass
class Simulator:
    """A registry that deletes: a manifest by digest goes with all its tags."""

    tags: dict[str, Digest]
    nodes: dict[Digest, Node]
    start: RepositoryGraph = field(init=False)

    def __post_init__(self) -> None:
        self.start = RepositoryGraph(tags=dict(self.tags), nodes=dict(self.nodes))

    def delete(self, digest: Digest) -> None:
        del self.nodes[digest]
        self.tags = {tag: target for tag, target in self.tags.items() if target != digest}

    def reachable(self, tags: list[str]) -> set[Digest]:
        """Everything that a pull, or a look at referrers, of these tags can get at; written apart from the planner."""
        found: set[Digest] = set()
        frontier = {self.start.tags[tag] for tag in tags}
        while frontier:
            found |= frontier
            fallback = {target for tag, target in self.start.tags.items() if attached_to(tag) in frontier}
            frontier = (
                {child for digest in frontier for child in self.start.nodes[digest].children}
                | {each.digest for each in self.start.nodes.values() if each.subject in frontier}
                | fallback
            ) - found
        return found

    def broken(self) -> list[str]:
        """Tags that name something of which a part is missing."""

        def whole(digest: Digest) -> bool:
            return digest in self.nodes and all(whole(child) for child in self.nodes[digest].children)

        return [tag for tag, digest in self.tags.items() if not whole(digest)]


@pytest.mark.first
@settings(max_examples=examples(400))
@given(graph=repositories(), rules=rules_of, draw=st.data())
def test_nothing_reachable_from_a_kept_tag_is_deleted_and_no_tag_is_ever_broken(
    graph: RepositoryGraph, rules: KeepRules, draw: st.DataObject
) -> None:
    made = plan_prune(graph, rules, now=NOW)
    registry = Simulator(dict(graph.tags), dict(graph.nodes))
    needed = registry.reachable([tag for tag in made.kept_tags if attached_to(tag) is None])

    for tag in made.untag:
        del registry.tags[tag]
        assert registry.broken() == []
    for each in made.rounds:
        # A registry that takes many at once promises no order among them.
        for digest in draw.draw(st.permutations(each)):
            registry.delete(digest)
            assert registry.broken() == []

    assert needed <= set(registry.nodes)
    assert set(registry.tags) == set(made.kept_tags)
    assert set(registry.nodes) == set(made.kept_manifests)
    again = plan_prune(RepositoryGraph(tags=registry.tags, nodes=registry.nodes), rules, now=NOW)
    assert again.deleted == []


def reference(pattern: str, tag: str) -> bool:
    if pattern.startswith("*"):
        return any(reference(pattern[1:], tag[start:]) for start in range(len(tag) + 1))
    if not pattern or not tag:
        return pattern == tag
    return pattern[0] in ("?", tag[0]) and reference(pattern[1:], tag[1:])


@given(pattern=st.text("ab*?.", max_size=6), tag=st.text("ab.", min_size=1, max_size=8))
def test_a_pattern_keeps_the_tags_that_the_reference_matches(pattern: str, tag: str) -> None:
    graph = graph_of({tag: "image"}, node("image"))
    assert (tag in planned(graph, tags=(pattern,)).kept_tags) is reference(pattern, tag)


def test_a_hostile_pattern_and_tag_cost_next_to_nothing() -> None:
    graph = graph_of({"a" * 128: "image"}, node("image"))
    before = time.process_time()
    assert not planned(graph, tags=("*a" * 90 + "*b",)).kept_tags
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("tags", [("a" * 201,), ("a",) * 101])
def test_the_length_and_the_number_of_patterns_are_bounded(tags: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="retention"):
        KeepRules.of(tags=tags)


def cache_node(text: str, *, days: float | None) -> Node:
    return replace(node(text, days=days), is_cache=True)


WITH_CACHES = graph_of(
    {"v1": "old", "v2": "new", "cache-main": "young", "cache-gone": "dead", "cache-odd": "undated"},
    node("old", days=90),
    node("new", days=60),
    cache_node("young", days=3),
    cache_node("dead", days=40),
    cache_node("undated", days=None),
)


def test_build_caches_have_a_rule_of_their_own() -> None:
    made = planned(WITH_CACHES, tags=("v2",))
    assert made.kept_tags == ("cache-main", "cache-odd", "v2")
    assert made.deleted_tags == ("cache-gone", "v1")
    assert made.reasons["cache-main"] == "a build cache younger than 30 days, 0:00:00"
    assert made.reasons["cache-odd"] == "a build cache; it has no creation time"
    assert made.reasons["cache-gone"] == "a build cache older than 30 days, 0:00:00"


def test_a_build_cache_is_never_one_of_the_newest_images() -> None:
    made = planned(WITH_CACHES, latest=1, caches_younger_than=timedelta(days=1))
    assert made.kept_tags == ("cache-odd", "v2")


def test_a_young_age_for_images_says_nothing_about_caches() -> None:
    made = planned(WITH_CACHES, younger_than=timedelta(days=70), caches_younger_than=timedelta(days=50))
    assert made.kept_tags == ("cache-gone", "cache-main", "cache-odd", "v2")


def test_a_pattern_keeps_a_build_cache_of_any_age() -> None:
    assert "cache-gone" in planned(WITH_CACHES, tags=("v2", "cache-*")).kept_tags


def test_rules_that_keep_build_caches_alone_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the rules keep nothing of team/app") as caught:
        planned(WITH_CACHES, tags=("v3",)).reject_emptying("team/app")
    assert "the existing tags are: v1, v2." in str(caught.value.advice)
    only_caches = graph_of({"cache-gone": "dead"}, cache_node("dead", days=40))
    planned(only_caches, tags=("v3",)).reject_emptying("team/app")
