"""Which environment variables are recorded, and which must never be.

An allow-list: what can change a training run is recorded, whatever else a person has in the environment is
their own business. A name that looks like a secret's, or a value that does, is named and never stored.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Mapping, Tuple

from mllaunch_agent.redaction import mask_text

__all__ = ["may_be_secret", "variables"]

_RECORDED = re.compile(
    r"(PATH|LD_LIBRARY_PATH|HF_HOME|VIRTUAL_ENV|LANG|TZ"
    r"|(CUDA|NCCL|OMP|MKL|TRANSFORMERS|TOKENIZERS|XLA|JAX|TF|SLURM|CONDA|LC)_.*"
    r"|(OPENBLAS|TORCH|PYTORCH|PYTHON).*)\Z",
    re.DOTALL,
)

# A word of the name, or its end where words are written together, as in PGPASSWORD. Not a plain search:
# TOKENIZERS_PARALLELISM is no secret.
_SECRET_WORD = re.compile(
    r"(AUTH|AUTHORIZATION|BEARER|COOKIE|CREDS|JWT|PASS"
    r"|.*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)S?|.*(PASSWD|PASSPHRASE|PWD))\Z"
)


def may_be_secret(name: str) -> bool:
    """Whether a variable of this name could hold a secret: when in doubt it does, unlike in
    redaction.looks_secret.

    There a mistake would mask half of a log; here it costs a line in a record. PWD and OLDPWD are folders.
    """
    if name in ("PWD", "OLDPWD"):
        return False
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return any(_SECRET_WORD.match(word) for word in words)


def variables(
    environ: Mapping[str, str], extra_names: Iterable[str] = ()
) -> Tuple[Dict[str, str], List[str]]:
    """What to record of an environment: (name -> value, names of variables held back because they look
    secret).

    extra_names: recorded as well, because the user named them. A name that looks secret wins over both lists.
    Both results are sorted by name. The second holds every secret-looking name that is set, wanted or not, so
    that a reader learns that a token was there without learning the token.
    """
    extra = frozenset(extra_names)
    recorded = {}
    redacted = []
    for name in sorted(environ):
        wanted = name in extra or _RECORDED.match(name) is not None
        if may_be_secret(name) or (wanted and mask_text(environ[name]) != environ[name]):
            redacted.append(name)
        elif wanted:
            recorded[name] = environ[name]
    return recorded, redacted
