"""`windlass keygen`: keys for the encryption of payloads."""

import os
import time

import click

from windlass.config import make_config
from windlass.vault import UNIQUE, make_key


@click.command()
def keygen() -> None:
    """Print keys for WINDLASS_KEYS, which encrypt what is stored of jobs.

    Where keys are configured already, one new key: add it behind the others in every process first, then move it to the
    front, so that no worker meets what it cannot open.
    """
    fresh = make_key(f"k{time.strftime('%Y%m%d')}-{os.urandom(2).hex()}")
    if make_config().keys:
        click.echo(fresh)
        click.echo("Add it to the end of WINDLASS_KEYS everywhere, restart; then move it to the front", err=True)
    else:
        click.echo(f"{fresh},{make_key(UNIQUE)}")
        click.echo("Keep this as WINDLASS_KEYS, where secrets are kept: what it encrypts is lost with it", err=True)
