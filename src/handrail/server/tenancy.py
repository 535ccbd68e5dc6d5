"""Which tenant's data a request sees, and which tenant it acts for: one tenant never sees another's data. Pure.

A principal (`auth.py`) either belongs to one tenant or is an operator, who belongs to none and sees all of them. The
functions here turn that and what the request names into a tenant, which every query in `queries.py` is then limited to.
Ingested spans are the exception: they are assigned to the tenant of the sender's key by `traces/otlp/ingest.py`.
"""

from handrail.access.errors import NotAllowed

DEFAULT_TENANT = "default"
"""The tenant of a run that an operator starts without naming one."""


def visible_tenant(principal_tenant: str | None, requested: str | None = None) -> str | None:
    """The tenant whose data a request may read, so that no principal of one tenant sees another's.

    Args:
        principal_tenant: The principal's only tenant; None for an operator.
        requested: The tenant that the request names, if any. It narrows what an operator sees, and nothing else.

    Returns:
        The principal's own tenant, whatever is requested; for an operator the requested one, or None for all tenants.
    """
    return principal_tenant if principal_tenant is not None else requested or None


def run_tenant(principal_tenant: str | None, requested: str | None = None) -> str:
    """The tenant that a run is started for, so that no principal of one tenant spends or acts for another.

    Args:
        principal_tenant: The principal's only tenant; None for an operator.
        requested: The tenant that the request names, if any.

    Returns:
        The principal's own tenant; for an operator the requested one, or the default.

    Raises:
        NotAllowed: The request names a tenant that is not the principal's.
    """
    if principal_tenant is None:
        return requested or DEFAULT_TENANT
    if requested and requested != principal_tenant:
        raise NotAllowed("tenant: the key belongs to another tenant; leave the field out")
    return principal_tenant


def check_sees_jobs(principal_tenant: str | None) -> None:
    """Keeps background jobs, which are of every tenant, from principals of one tenant.

    Args:
        principal_tenant: The principal's only tenant; None for an operator.

    Raises:
        NotAllowed: The principal is not an operator.
    """
    if principal_tenant is not None:
        raise NotAllowed("jobs are of every tenant, and so are their errors; only operators can see them")


def check_sees_evals(principal_tenant: str | None) -> None:
    """Keeps eval runs, which are not limited to one tenant, from principals of one tenant.

    Args:
        principal_tenant: The principal's only tenant; None for an operator.

    Raises:
        NotAllowed: The principal is not an operator.
    """
    if principal_tenant is not None:
        raise NotAllowed("evals are about agents, not about one tenant; only operators can see them")
