"""What federations, sites and releases may be called: fit for a file name on every system, and for one line of text."""

from typing import Annotated

from pydantic import Field

NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}"
"""Pattern of a name, without anchors."""

Name = Annotated[str, Field(pattern=f"^{NAME}$")]
