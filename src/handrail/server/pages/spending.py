"""Where users' days and tenants' months stand below their ceilings."""

from fastapi import APIRouter
from starlette.responses import Response

from .context import Looking

router = APIRouter(include_in_schema=False)

_ROWS = 200


@router.get("/spending")
async def show(look: Looking) -> Response:
    """The current days and months."""
    found = await look.reads.accounts(_ROWS)
    return look.page("spending.html", accounts=found, more=len(found) == _ROWS)
