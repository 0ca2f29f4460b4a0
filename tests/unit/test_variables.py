from __future__ import annotations

import pytest

from mllaunch_agent.variables import may_be_secret, variables

RECORDED = """
PATH LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES NCCL_DEBUG OMP_NUM_THREADS MKL_NUM_THREADS
OPENBLAS_NUM_THREADS TORCH_HOME TORCHINDUCTOR_CACHE_DIR PYTORCH_CUDA_ALLOC_CONF PYTHONPATH
PYTHONHASHSEED HF_HOME TRANSFORMERS_OFFLINE TOKENIZERS_PARALLELISM XLA_FLAGS JAX_PLATFORMS
TF_CPP_MIN_LOG_LEVEL SLURM_JOB_ID VIRTUAL_ENV CONDA_PREFIX LANG LC_ALL TZ
"""


@pytest.mark.parametrize("name", RECORDED.split())
def test_what_can_change_a_training_run_is_recorded(name: str) -> None:
    assert variables({name: "v"}) == ({name: "v"}, [])


@pytest.mark.parametrize("name", ["HOME", "LANGUAGE_OF_LOVE", "PATHOLOGY", "MY_CUDA_X", "PWD", "EDITOR"])
def test_everything_else_is_nobodys_business(name: str) -> None:
    assert variables({name: "v"}) == ({}, [])


def test_what_the_user_names_is_recorded_too() -> None:
    assert variables({"SEED": "7", "HOME": "/x"}, ["SEED", "UNSET"]) == ({"SEED": "7"}, [])


SECRET = """HF_TOKEN WANDB_API_KEY AWS_SECRET_ACCESS_KEY PGPASSWORD DB_PASSWD MY_PASSWORD GITHUBTOKEN
GOOGLE_CREDENTIALS PIP_AUTH SLURM_JWT db_pwd apikey PYTHON_KEYS CUDA_LICENSE_KEY"""


@pytest.mark.parametrize("name", SECRET.split())
def test_a_name_that_looks_secret_is_named_and_never_recorded(name: str) -> None:
    assert variables({name: "hush"}, [name]) == ({}, [name])
    assert variables({name: "hush"}) == ({}, [name])


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "PYTHON_KEYRING_BACKEND", "AUTHOR", "OLDPWD", "COMPASS_X"]
)
def test_a_name_that_only_resembles_a_secrets_is_none(name: str) -> None:
    assert not may_be_secret(name)


@pytest.mark.parametrize(
    "value", ["https://me:hunter22@host/simple", "x=hf_" + "a1B2" * 9, "ghp_" + "a1B2" * 9]
)
def test_a_value_that_looks_secret_is_not_recorded_under_a_harmless_name(value: str) -> None:
    assert variables({"PROXY": value, "TZ": "UTC"}, ["PROXY"]) == ({"TZ": "UTC"}, ["PROXY"])


def test_results_are_sorted() -> None:
    recorded, redacted = variables({"TZ": "1", "LANG": "2", "Z_TOKEN": "3", "A_TOKEN": "4"})
    assert (list(recorded), redacted) == (["LANG", "TZ"], ["A_TOKEN", "Z_TOKEN"])
