"""`cloche up`: serve a model, or what cloche.toml describes."""

from __future__ import annotations

from typing import Annotated, NoReturn

from cyclopts import Parameter

from cloche.app.up import up as serve
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal
from cloche.cli.ticker import ticking


def up(
    model: str | None = None,
    /,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    allow_code: bool = False,
    i_terminate_tls_elsewhere: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> NoReturn:
    """Serve a model, or what cloche.toml describes.

    Parameters
    ----------
    model
        A version (fraud@champion), a model file (./model.onnx) or a class (sentiment.py:Sentiment), which
        are packed first, or a bundle's folder or archive; every [online.NAME] of cloche.toml when not given.
    host
        The address to listen on; 127.0.0.1 when nothing else is set.
    port
        The port to listen on; 8080 when nothing else is set.
    workers
        How many processes serve; one for each core when nothing else is set.
    allow_code
        Run bundles that carry Python code, in processes of their own.
    i_terminate_tls_elsewhere
        Listen beyond loopback without TLS, since a proxy in front ends it.
    """
    overrides = {
        "serve.host": host,
        "serve.port": port,
        "serve.workers": workers,
        "serve.allow_code": allow_code or None,
    }
    project = open_here(terminal, create=True, overrides=overrides)
    serve(
        project,
        model,
        tls_elsewhere=i_terminate_tls_elsewhere,
        as_json=terminal.json,
        colour=terminal.is_colourful(),
        note=terminal.note,
        packing=ticking(terminal),
    )
