"""The rules of `tenancy.py`, for every combination of the principal's tenant and the one that a request names."""

import pytest

from handrail.access.errors import NotAllowed
from handrail.server.tenancy import DEFAULT_TENANT, check_sees_evals, check_sees_jobs, run_tenant, visible_tenant


@pytest.mark.parametrize(
    ("principal_tenant", "requested", "visible"),
    [
        (None, None, None),
        (None, "", None),
        (None, "acme", "acme"),
        ("acme", None, "acme"),
        ("acme", "", "acme"),
        ("acme", "acme", "acme"),
        ("acme", "globex", "acme"),
        # Not a tenant that can exist; were there one, it would see nothing rather than everything.
        ("", None, ""),
        ("", "", ""),
        ("", "globex", ""),
    ],
)
def test_the_visible_tenant(principal_tenant: str | None, requested: str | None, visible: str | None) -> None:
    """A principal of one tenant sees that one whatever it asks for; an operator sees all tenants or the named one."""
    assert visible_tenant(principal_tenant, requested) == visible


@pytest.mark.parametrize(
    ("principal_tenant", "requested", "tenant"),
    [
        (None, None, DEFAULT_TENANT),
        (None, "", DEFAULT_TENANT),
        (None, "acme", "acme"),
        ("acme", None, "acme"),
        ("acme", "", "acme"),
        ("acme", "acme", "acme"),
        ("", None, ""),
        ("", "", ""),
    ],
)
def test_the_tenant_of_a_run(principal_tenant: str | None, requested: str | None, tenant: str) -> None:
    """A run is for the principal's tenant; an operator's run is for the named one, or the default."""
    assert run_tenant(principal_tenant, requested) == tenant


@pytest.mark.parametrize("principal_tenant", ["acme", ""])
def test_no_run_for_another_tenant(principal_tenant: str) -> None:
    """A principal of one tenant cannot start a run for another."""
    with pytest.raises(NotAllowed, match="the key belongs to another tenant"):
        run_tenant(principal_tenant, "globex")


def test_evals_are_for_operators() -> None:
    """An operator sees eval runs; a principal of one tenant does not."""
    check_sees_evals(None)
    for tenant in ("acme", ""):
        with pytest.raises(NotAllowed, match="only operators"):
            check_sees_evals(tenant)


def test_jobs_are_for_operators() -> None:
    """An operator sees background jobs, which are of every tenant; a principal of one tenant does not."""
    check_sees_jobs(None)
    for tenant in ("acme", ""):
        with pytest.raises(NotAllowed, match="only operators"):
            check_sees_jobs(tenant)
