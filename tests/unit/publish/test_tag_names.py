"""Templates of tags, and their grammar."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.tag_names import TagFields, TagNames, check_tag, check_templates, platform_tags, render_tags
from soci_pipeline.registry.reference import is_tag

SHA = "0123456789abcdef0123456789abcdef01234567"
FIELDS = TagFields(sha=SHA, ref="refs/heads/feature/login", date=date(2026, 11, 24), version="v1.2.0+build.5")


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("{sha}", SHA),
        ("{short_sha}", "0123456789ab"),
        ("{ref}", "feature-login"),
        ("nightly-{date}", "nightly-2026-11-24"),
        ("{version}", "v1.2.0-build.5"),
        ("latest", "latest"),
        ("{ref}.{date}_{short_sha}", "feature-login.2026-11-24_0123456789ab"),
    ],
)
def test_a_template_is_filled_with_what_is_known_of_the_commit(template: str, tag: str) -> None:
    assert render_tags([template], FIELDS) == (tag,)


def test_equal_tags_of_two_templates_are_one_tag() -> None:
    assert render_tags(["{ref}", "latest", "feature-login"], FIELDS) == ("feature-login", "latest")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "-{sha}",
        ".hidden",
        "{sha",
        "sha}",
        "{}",
        "{unknown}",
        "{sha.__class__}",
        "{sha!r}",
        "{sha:>90}",
        "{{sha}}",
        "a b",
        "a/b",
        "a:b",
        "a@b",
        "a;b",
        "$(id)",
        "a\nb",
        "latest\n",
        "é",
        "{sha}{sha}{sha}{sha}",
    ],
)
def test_a_template_that_gives_no_tag_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput):
        render_tags([template], FIELDS)
    with pytest.raises(InvalidInput):
        check_templates([template])


@pytest.mark.parametrize(
    "ref",
    [
        "main;rm -rf /",
        "main$(id)",
        "main`id`",
        "main\n",
        "a b",
        "-rf",
        "../../etc",
        "a..b",
        "é",
        "refs/heads/",
        "",
        '"',
        "a|b",
        "{sha}",
        "a\x00",
    ],
)
def test_a_ref_with_characters_of_no_sensible_branch_is_refused_where_it_is_used(ref: str) -> None:
    fields = TagFields(sha=SHA, ref=ref, date=date(2026, 1, 1))

    with pytest.raises(InvalidInput, match="cannot be part of a tag"):
        render_tags(["{ref}"], fields)
    assert render_tags(["{sha}"], fields) == (SHA,)


def test_a_missing_version_is_named_with_what_to_do() -> None:
    fields = TagFields(sha=SHA, ref="main", date=date(2026, 1, 1))

    with pytest.raises(InvalidInput, match="requires a git tag on the commit") as caught:
        render_tags(["{version}"], fields)
    assert "short_sha" in str(caught.value.advice)


def test_a_commit_must_be_a_whole_commit_id() -> None:
    with pytest.raises(InvalidInput, match="not a commit id"):
        TagFields(sha="main", ref="main", date=date(2026, 1, 1))


@given(template=st.text(max_size=40), ref=st.text(max_size=40))
def test_whatever_is_asked_for_the_answer_is_a_tag_or_a_refusal(template: str, ref: str) -> None:
    try:
        (tag,) = render_tags([template], TagFields(sha=SHA, ref=ref, date=date(2026, 1, 1), version=ref))
    except InvalidInput:
        return
    assert is_tag(tag)
    assert check_tag(tag) == tag


def test_platform_tags_name_the_architecture_as_the_blueprint_does() -> None:
    platforms = [Platform.parse(text) for text in ("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "windows/amd64")]

    assert list(platform_tags("1.0", platforms).values()) == [
        "1.0-amd64",
        "1.0-arm64",
        "1.0-arm-v6",
        "1.0-windows-amd64",
    ]


def test_two_platforms_under_one_platform_tag_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the same tag"):
        platform_tags("1.0", [Platform.parse("linux/arm64"), Platform.parse("linux/arm64/v8")])


def test_all_tags_of_a_publication_are_known_before_its_build() -> None:
    commit = ResolvedSource(url="https://git.example.com/app.git", ref="refs/heads/main", commit=SHA, commit_time=1)
    platforms = [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]
    names = TagNames.render(["{ref}", "latest"], commit, date(2026, 11, 24), platforms=platforms)
    assert names.tags == ("main", "latest")
    assert [list(own.values()) for own in names.of_platforms] == [
        ["main-amd64", "main-arm64"],
        ["latest-amd64", "latest-arm64"],
    ]
    assert TagNames.render(["{ref}"], commit, date(2026, 11, 24)).of_platforms == ()


def test_a_tag_that_is_too_long_for_a_platform_is_rejected_with_the_others() -> None:
    commit = ResolvedSource(url="https://git.example.com/app.git", ref="refs/heads/main", commit=SHA, commit_time=1)
    longest = "v" * 128
    assert TagNames.render([longest], commit, date(2026, 11, 24)).tags == (longest,)
    with pytest.raises(InvalidInput, match="not a valid tag"):
        TagNames.render([longest], commit, date(2026, 11, 24), platforms=[Platform.parse("linux/amd64")])
