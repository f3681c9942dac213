"""``fedsi node``: the process that answers a SuperNode's messages."""

from pathlib import Path
from typing import Annotated

import typer

from simulations.cli import options
from simulations.safe_text import one_line


def node(
    supernode: Annotated[
        str,
        typer.Option("--supernode", metavar="HOST:PORT", help="SuperNode on this machine."),
    ] = "127.0.0.1:9094",
    secret: Annotated[
        Path | None, typer.Option("--secret", metavar="FILE", help="The SuperNode's secret.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=1, help="Seconds to wait for an absent SuperNode.")
    ] = 3600.0,
) -> None:
    """Answer the messages of a SuperNode that was started with --isolation process."""
    from fedsi.errors import UserError
    from simulations.engines.deployed import read_secret
    from simulations.engines.supernode import serve_supernode

    if secret is None:
        raise UserError(
            "--secret FILE is missing: the file of the SuperNode's --superexec-auth-secret-file"
        )
    console = options.messages()

    def told(line: str) -> None:
        console.print(one_line(line), highlight=False, soft_wrap=True, markup=False)

    serve_supernode(supernode, read_secret(secret), told, longest_wait=wait)
