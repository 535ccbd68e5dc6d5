"""What the API's routes depend on: principals by the scope of their key, and the store as they see it."""

from typing import Annotated

from fastapi import Depends, Request

from handrail.server.auth import Principal, require_scope
from handrail.server.queries import Queries
from handrail.server.state import app_state
from handrail.server.tenancy import visible_tenant

RunPrincipal = Annotated[Principal, Depends(require_scope("run"))]
ReadPrincipal = Annotated[Principal, Depends(require_scope("read"))]
DecidePrincipal = Annotated[Principal, Depends(require_scope("decide"))]
IngestPrincipal = Annotated[Principal, Depends(require_scope("ingest"))]


def queries_for(request: Request, principal: Principal, tenant: str = "") -> Queries:
    """The store as a principal sees it.

    Args:
        request: The principal's request.
        principal: Who the request comes from.
        tenant: The tenant that the request names, if any; see `visible_tenant`.
    """
    return Queries(app_state(request).runtime, visible_tenant(principal.tenant, tenant))
