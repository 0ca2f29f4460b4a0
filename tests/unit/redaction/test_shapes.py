"""Which bytes count as a secret although nobody declared them."""

from __future__ import annotations

import pytest

from mllaunch_agent.redaction import CONTEXT, Masker, looks_secret, mask_argv, mask_text
from tests.unit.redaction.test_masking_streams import SHAPED

MASKER = Masker([])


@pytest.mark.parametrize("secret", SHAPED)
@pytest.mark.parametrize(
    "around",
    [
        b"%s",
        b"key=%s ",
        b"'%s',",
        b'{"k":"%s"}',
        b"'\\n%s\\n'",
        b"\x1b[1;31m%s\x1b[0m",
        b"a%%3D%s&",
        rb"k\u003d%s\x0a",
    ],
)
def test_a_known_shape_is_masked_wherever_it_stands(secret, around):
    assert MASKER.mask(around % secret)[0] == around % (b"*" * len(secret))


@pytest.mark.parametrize(
    "text",
    [
        "task-1 risk-free-investment-strategy disk-usage-of-everything",
        "gradient_accumulation_steps=4 hf_hub_download_cache_folder hf_",
        "sk-learn-contrib-imbalanced sk- ghp_short AKIA eyJ eyJhbGciOiJIUzI1NiJ9",
        "npm_config_registry_something pypi-attestations-and-more-of-it",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "https://host:8080/path user@host mailto:me@example.org git@github.com:me/repository.git",
        "http://localhost:8265 then me@host",
        '{"url":"http://localhost:80","email":"a@b.c"}',
        "019f2c1e-7a3b-7c11-8f00-0123456789ab",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert mask_text(text) == text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:s3cret@host/x", "https://me:******@host/x"),
        ("postgresql://me:p@ss:w@host:5432/db", "postgresql://me:******@host:5432/db"),
        ("https://:token@host", "https://:*****@host"),
        ("git+https://oauth2:abc@host", "git+https://oauth2:***@host"),
        ("one https://a:b@c two https://d:e@f", "one https://a:*@c two https://d:*@f"),
    ],
)
def test_only_the_password_of_an_address_is_masked(address, shown):
    assert mask_text(address) == shown


@pytest.mark.parametrize("secret", SHAPED)
def test_what_masks_a_shape_needs_no_byte_beyond_the_context(secret):
    endless = secret + b"a" * 2 * CONTEXT
    first, _ = MASKER.mask(endless[:CONTEXT])
    assert first[: len(secret)] == b"*" * len(secret)
    assert MASKER.mask(endless)[0][: len(secret)] == first[: len(secret)]


def test_the_longest_password_of_an_address_fits_the_context():
    address = b"x://" + b"u" * 256 + b":" + b"p" * 1024 + b"@"
    assert len(address) <= CONTEXT
    assert MASKER.mask(address)[1] == [(4 + 256 + 1, len(address) - 1)]


def test_text_that_is_not_utf8_survives():
    assert mask_text("caf\udce9 \ud800 geheimnis ü", ["geheimnis"]) == "caf\udce9 \ud800 ********* ü"


def test_a_value_that_is_not_utf8_is_masked():
    assert mask_text("x geheim\udce9 y", ["geheim\udce9"]).startswith("x ******")


def test_a_command_line_shows_no_secret():
    argv = [
        "train.py",
        "--api-key",
        "abc",
        "--token=def",
        "--lr",
        "1",
        "HF_TOKEN=ghi",
        "--auth",
        "--x",
        "geheimnis",
    ]
    assert mask_argv(argv, ["geheimnis"]) == [
        "train.py",
        "--api-key",
        "***",
        "--token=***",
        "--lr",
        "1",
        "HF_TOKEN=***",
        "--auth",
        "--x",
        "*********",
    ]


def test_a_command_line_without_secrets_is_unchanged():
    argv = [
        "train.py",
        "--tokenizer",
        "gpt2",
        "--max-tokens=5",
        "--key-size",
        "128",
        "-k",
        "v",
        "",
        "--",
        "--password",
    ]
    assert mask_argv(argv) == argv


SECRET_NAMES = """
    API_KEY OPENAI_API_KEY --api-key HF_TOKEN token --hf-token clientSecret AWS_SECRET_ACCESS_KEY DB_PASSWORD
    AWS_ACCESS_KEY_ID passwd GOOGLE_APPLICATION_CREDENTIALS accessKey APIKey OPENAI_APIKEY API_KEY_OPENAI
    optimizer.api_key AUTH_TOKEN HTTP_AUTHORIZATION
"""

OTHER_NAMES = """
    --tokenizer --key-size --keypoints --num-tokens --max-tokens MONKEY author --pad-token --eos_token_id lr
    TOKENIZERS_PARALLELISM --num-key-value-heads keyboard AUTHOR --token-dropout --max-token --sort-key
    SSH_AUTH_SOCK --auth-type PWD
"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_of_secrets(name):
    assert looks_secret(name)


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_names_of_other_things(name):
    assert not looks_secret(name)
