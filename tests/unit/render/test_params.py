from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.domain.params import from_args


@pytest.mark.parametrize(
    ("line", "params"),
    [
        ("--lr 3e-4", {"lr": "3e-4"}),
        ("--lr=3e-4 --name=a=b --empty=", {"lr": "3e-4", "name": "a=b", "empty": ""}),
        ("-b 64 -lr 0.1 -j8", {"b": "64", "lr": "0.1", "j": "8"}),
        ("--amp --lr 1 -v", {"amp": "true", "lr": "1", "v": "true"}),
        ("--no-amp", {"amp": "false"}),
        ("--no-repeat-ngram-size 3 --no-x=1", {"no-repeat-ngram-size": "3", "no-x": "1"}),
        (
            "--offset -3 --eps -1e-5 --low -.5 --top -inf",
            {"offset": "-3", "eps": "-1e-5", "low": "-.5", "top": "-inf"},
        ),
        ("--betas 0.9 0.999 --layers 64 64 32 data.txt", {"betas": "0.9 0.999", "layers": "64 64 32"}),
        ("--data a b", {"data": "a"}),
        ("--tag a --lr 1 --tag b", {"tag": "a,b", "lr": "1"}),
        (
            "lr=0.1 +trainer.x=1 ++y=[1,2] ~z db=mysql",
            {"lr": "0.1", "trainer.x": "1", "y": "[1,2]", "db": "mysql"},
        ),
        ("--multirun lr=0.1", {"multirun": "true", "lr": "0.1"}),
        ("train in/epoch=3.ckpt -5 - x.txt", {}),
        ("--lr 1 -- --other 2 x=3", {"lr": "1"}),
        ("--input -", {"input": "-"}),
        ("--lr", {"lr": "true"}),
        ("--batch_size 1", {"batch_size": "1"}),
        ("--größe 3", {"größe": "3"}),
        ("--=x -= --- -", {}),
    ],
)
def test_arguments_become_parameters(line, params):
    assert dict(from_args(line.split())) == params


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["--", "--x", "-x", "--x=1", "x=1", "-1", "--no-x", "--no-", "-", "=", "\ud800\n"]),
)


@given(st.lists(WORDS))
def test_any_arguments_give_names_once_and_text_values(args):
    params = from_args(args)
    assert len({name for name, _ in params}) == len(params)
    assert all(name and isinstance(value, str) for name, value in params)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_-]{3,9}", fullmatch=True), st.text(), max_size=6))
def test_what_is_written_with_an_equals_sign_is_read_back(params):
    assert dict(from_args([f"--{name}={value}" for name, value in params.items()])) == params
