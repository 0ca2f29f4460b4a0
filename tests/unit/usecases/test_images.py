from __future__ import annotations

from typing import Any

from mllaunch.usecases.images import CODE, ENVIRONMENT, MadeImage, known, made, removable

LISTED: list[dict[str, Any]] = [
    {
        "Id": "sha256:c1",
        "RepoTags": ["mllaunch/a:1"],
        "Size": 9,
        "Labels": {
            "mllaunch.environment": "e1",
            "mllaunch.tree": "t",
            "org.opencontainers.image.revision": "abc",
        },
    },
    {
        "Id": "sha256:c2",
        "RepoTags": None,
        "Size": 9,
        "Labels": {"mllaunch.environment": "e2", "mllaunch.tree": "t"},
    },
    {"Id": "sha256:e1", "RepoTags": ["mllaunch/environment:e1"], "Labels": {"mllaunch.environment": "e1"}},
    {"Id": "sha256:e2", "RepoTags": ["mllaunch/environment:e2"], "Labels": {"mllaunch.environment": "e2"}},
    {"Id": "sha256:other", "RepoTags": ["python:3.11"], "Labels": None},
]


def test_only_images_of_ours_are_ours_and_say_what_they_are() -> None:
    found = {image.id: image for image in made(LISTED)}
    assert set(found) == {"sha256:c1", "sha256:c2", "sha256:e1", "sha256:e2"}
    assert (found["sha256:c1"].kind, found["sha256:c1"].commit) == (CODE, "abc")
    assert (found["sha256:e1"].kind, found["sha256:e1"].commit) == (ENVIRONMENT, None)
    assert found["sha256:c2"].name == "sha256:c2", "one without a name is called by its id"


def test_what_others_made_in_the_same_engine_is_theirs() -> None:
    ours = known(list(made(LISTED)), lambda image: image.id == "sha256:c1")
    assert {image.id for image in ours} == {"sha256:c1", "sha256:e1"}


def test_an_image_of_a_run_that_goes_on_stays_with_what_it_was_built_on() -> None:
    images = list(made(LISTED))
    assert [i.id for i in removable(images, {"sha256:c1"}, environments=False)] == ["sha256:c2"]
    assert {i.id for i in removable(images, {"sha256:c1"}, environments=True)} == {"sha256:c2", "sha256:e2"}
    assert len(list(removable(images, (), environments=True))) == 4


def test_where_only_images_of_code_were_brought_one_of_each_environment_keeps_its_layers() -> None:
    images = [
        MadeImage(f"p:{n}", f"sha256:{n}", CODE, env, n, 1) for n, env in zip("abcd", "eeef", strict=True)
    ]
    assert [i.id for i in removable(images, (), environments=False)] == ["sha256:b", "sha256:c"]
    assert [i.id for i in removable(images, {"sha256:b"}, environments=False)] == ["sha256:a", "sha256:c"]
    assert len(list(removable(images, (), environments=True))) == 4
