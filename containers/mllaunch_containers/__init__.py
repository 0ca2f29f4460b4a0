"""From committed code to a container image.

    spec          what an image is made of, as values
    dependencies  which packages the repository asks for, a module for each kind of file; pure
    dockerfile    the text that builds the environment; pure
    codelayer     the code as one layer, the same bytes everywhere
    layered       an image as its environment and one more layer; pure
    engine        the container engine, through Docker's SDK
    builder       from a specification to a reference with a digest
    transfer      an image from one engine to another: only the layers that are missing there

Knows neither the launcher nor the agent. Public: the values of ``spec`` and what the modules say in ``__all__``.
"""

from __future__ import annotations
