"""The spending page: users' days and tenants' months against their ceilings."""

from fastapi import APIRouter
from starlette.responses import Response

from .context import Page

router = APIRouter(include_in_schema=False)

_ROWS = 200


@router.get("/spending")
async def show_spending(page: Page) -> Response:
    """The spending of the current days and months."""
    accounts = await page.queries.accounts(_ROWS)
    return page.render("spending.html", accounts=accounts, more=len(accounts) == _ROWS)
