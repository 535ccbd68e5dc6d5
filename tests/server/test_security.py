"""Authentication, protection from other origins, and escaping of text from users and models."""

import re
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import Answered, Runtime, use_runtime
from handrail.access.login import new_user
from handrail.access.users import SESSION_LIFETIME
from handrail.kernel.errors import BadInput, BadSettings
from handrail.server.bind_policy import BindPolicy, bind_policy_for
from handrail.server.http_server import require_credentials
from handrail.server.middleware import MAX_BODY_BYTES
from handrail.server.pages.login import safe_redirect_path
from handrail.server.templating import sanitize_value
from handrail.testing import VirtualClock
from tests.server.conftest import make_key
from tests.server.live_server import LiveServer, live_server
from tests.server.page_reader import logged_in, send, text_of, token_in
from tests.server.shop import Shop
from tests.server.test_api import REQUEST, RUNS, assert_problem

PASSWORD = "correct horse battery staple"
HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "\x1b[31mred\x1b[0m",
    "safe\u202etxt.exe",
    "zero\u200bwidth",
)
PAGES = ("/", "/runs", "/inbox", "/traces", "/steps", "/cost", "/spending", "/evals")


def csp_of(response: httpx2.Response) -> dict[str, str]:
    rules = (rule.strip().partition(" ") for rule in response.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in rules}


def test_every_response_has_the_security_headers(local: LiveServer) -> None:
    """Pages, problems, the API and static files have a strict policy; only static files may be cached."""
    with local.client() as client:
        for path in (*PAGES, "/login", "/nothing", "/v1/approvals", "/v1/nothing", "/static/handrail.css"):
            response = client.get(path)
            rules = csp_of(response)
            assert (rules["default-src"], rules["frame-ancestors"], rules["base-uri"]) == ("'none'",) * 3, path
            assert not [rule for rule in rules.values() if "unsafe" in rule or "http" in rule or "*" in rule], path
            assert response.headers["x-content-type-options"] == "nosniff"
            assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
            assert ("no-store" in response.headers["cache-control"]) == ("/static/" not in path)


def test_pages_have_no_inline_code_and_no_foreign_urls(local: LiveServer) -> None:
    """No page has inline scripts, styles or handlers, and everything that it links to is on this server."""
    with local.client() as client:
        client.post(RUNS, json=REQUEST)
        for path in PAGES:
            text = client.get(path).text
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path
            assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", text))
            named = re.findall(r'(?:src|href|action)="([^"]*)"', text)
            assert [url for url in named if not re.match("/(?!/)|#", url)] == [], path


def test_other_host_names_are_refused(local: LiveServer) -> None:
    """A request to the local server under another host name, as with DNS rebinding, is refused."""
    with local.client() as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
            response = client.get("/v1/approvals", headers={"host": host})
            assert response.status_code in (400, 421), host
        for host in ("localhost", "127.0.0.1:8321", "LOCALHOST:1", "[::1]:8321"):
            assert client.get("/v1/approvals", headers={"host": host}).status_code == 200, host


def test_pages_of_other_origins_cannot_write(local: LiveServer) -> None:
    """Requests from pages of another origin are refused before they are read, by the API and by forms."""
    origins = ("https://evil.example", "null", "http://127.0.0.1:1", "http://")
    with local.client() as client:
        for headers in ({"origin": origin} for origin in origins):
            assert_problem(client.post(RUNS, json=REQUEST, headers=headers), 421, "wrong_host")
        for headers in ({"sec-fetch-site": site} for site in ("cross-site", "same-site")):
            assert_problem(client.post(RUNS, json=REQUEST, headers=headers), 421, "wrong_host")
            assert client.post("/runs/run_0/feedback", headers=headers).status_code == 421


def test_a_plain_text_body_is_not_read_as_json(local: LiveServer) -> None:
    """JSON sent as plain text, which other sites' pages can do without a CORS preflight, is refused."""
    with local.client() as client:
        response = client.post(RUNS, content=b'{"input": "x", "user": "u"}', headers={"content-type": "text/plain"})
    assert response.status_code == 422


def test_a_form_needs_its_token(local: LiveServer) -> None:
    """A form without its page's token, or with another browser's, is refused."""
    with local.client() as client, local.client() as other:
        run_id = client.post(RUNS, json=REQUEST).json()["run_id"]
        theirs = token_in(other.get(f"/runs/{run_id}"))
        for token in ({}, {"form_token": "0" * 64}, {"form_token": theirs}):
            response = client.post(f"/runs/{run_id}/feedback", data={"right": "yes", **token})
            assert (response.status_code, "reload it" in response.text) == (403, True)
        assert client.get(f"/v1/runs/{run_id}").json()["feedback"] == []
        assert send(client, f"/runs/{run_id}", f"/runs/{run_id}/feedback", right="yes").status_code == 303
        assert client.get(f"/v1/runs/{run_id}").json()["feedback"][0]["right"] is True


def test_a_public_address_needs_a_login(public: LiveServer) -> None:
    """On a public address, every page redirects to the login, and the API requires a key."""
    with public.client() as client:
        for path in (*PAGES, "/runs/run_0", "/inbox/appr_0", "/traces/ab", "/traces/ab/spans/cd"):
            response = client.get(path)
            assert (response.status_code, response.headers["location"].startswith("/login")) == (303, True), path
        for path in ("/runs/run_0/feedback", "/inbox/appr_0"):
            assert client.post(path, data={"form_token": "0" * 64}).status_code == 401, path
        assert_problem(client.get("/v1/approvals"), 401, "wrong_credentials")


def test_logging_in_and_out(public: LiveServer, runtime: Runtime, clock: VirtualClock) -> None:
    """A login leads back to the page that required it; the session ends when it expires and at the logout."""
    runtime.database.write_now(new_user("ann", PASSWORD, None, clock.now()))
    with public.client() as client:
        login = client.get("/runs?agent=shop").headers["location"]
        wrong = send(client, login, "/login", name="ann", password="open sesame")
        assert (wrong.status_code, "wrong name or password" in wrong.text, "sesame" in wrong.text) == (401, True, False)
        response = client.post(
            "/login",
            data={"form_token": token_in(wrong), "name": "ann", "password": PASSWORD, "to": "/runs?agent=shop"},
        )
        assert (response.status_code, response.headers["location"]) == (303, "/runs?agent=shop")
        [cookie] = [value for value in response.headers.get_list("set-cookie") if value.startswith("handrail=")]
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        assert client.get("/runs").status_code == 200
        token = client.cookies["handrail"]
        assert send(client, "/runs", "/logout").headers["location"] == "/login"
        assert client.get("/runs", headers={"cookie": f"handrail={token}"}).status_code == 303
    with logged_in(public, "ann", PASSWORD) as client:
        clock.advance(SESSION_LIFETIME.total_seconds())
        assert client.get("/runs").status_code == 303


def test_password_guessing_is_throttled(public: LiveServer, runtime: Runtime) -> None:
    """After a few wrong passwords the login page says when to try again."""
    runtime.database.write_now(new_user("ann", PASSWORD, None, runtime.clock.now()))
    with public.client() as client:
        responses = [send(client, "/login", "/login", name="ann", password="wrong") for _ in range(6)]
    assert [response.status_code for response in responses] == [401] * 5 + [429]
    assert "try again after" in text_of(responses[-1])


def test_behind_tls_cookies_are_bound_to_it(runtime: Runtime, shop: Shop) -> None:
    """With a public https URL, cookies have `Secure` and the prefix that binds them to the host."""
    policy = bind_policy_for("127.0.0.1", "https://handrail.example")
    with live_server(runtime, shop.find, policy) as server, server.client() as client:
        response = client.get("/login", headers={"host": "handrail.example"})
        assert client.get("/login").status_code == 421
    [cookie] = response.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-handrail-form=")
    assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert "max-age" in response.headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("address", "public_url", "requires_auth"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("::1", None, False),
        ("0.0.0.0", None, True),
        ("192.0.2.7", None, True),
        ("handrail.example", None, True),
        ("127.0.0.1", "https://handrail.example", True),
    ],
)
def test_only_loopback_needs_no_login(
    runtime: Runtime, address: str, public_url: str | None, requires_auth: bool
) -> None:
    """A public address or a proxy requires a login, and the server does not start without a user or key."""
    policy = bind_policy_for(address, public_url)
    assert policy.requires_auth is requires_auth
    if requires_auth:
        with pytest.raises(BadSettings, match="handrail users add"):
            require_credentials(runtime, policy)
        make_key(runtime, "acme", "read")
    require_credentials(runtime, policy)


@pytest.mark.parametrize("url", ["handrail.example", "ftp://handrail.example", "https://", "https://a/b"])
def test_a_public_url_is_the_root_of_an_origin(url: str) -> None:
    """A public URL that is not the http or https URL of a host is refused."""
    with pytest.raises(BadInput, match="--public-url"):
        bind_policy_for("127.0.0.1", url)


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a\nb", "", "x"]
)
def test_a_login_does_not_redirect_elsewhere(path: str) -> None:
    """A redirect target that is not a path of this server becomes the overview."""
    assert safe_redirect_path(path) == "/"
    assert safe_redirect_path("/runs?agent=a") == "/runs?agent=a"


def test_large_bodies_are_refused(local: LiveServer) -> None:
    """A body above the limit is a 413, with and without a declared length."""
    with local.client() as client:
        large = b" " * (MAX_BODY_BYTES + 1)
        headers = {"content-type": "application/json"}
        assert_problem(client.post(RUNS, content=large, headers=headers), 413, "too_large")
        pieces = (large[start : start + 65_536] for start in range(0, len(large), 65_536))
        assert_problem(client.post(RUNS, content=pieces, headers=headers), 413, "too_large")


async def _run_with_text(runtime: Runtime, shop: Shop, text: str) -> tuple[str, str]:
    """Makes a run in which user, tool and model all write `text`; returns its run id and trace id."""
    with use_runtime(runtime):
        outcome = await shop.find("shop").run(f"order {text}", user=text if text.isprintable() else "u", tenant="acme")
    assert isinstance(outcome, Answered)
    return outcome.facts.run_id, outcome.facts.trace_id


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
async def test_text_of_users_and_models_is_not_markup(
    runtime: Runtime, shop: Shop, local: LiveServer, text: str
) -> None:
    """Markup, URLs, templates, terminal codes and direction marks are shown as text."""
    run_id, trace_id = await _run_with_text(runtime, shop, text)
    with local.client() as client:
        client.post(
            f"/v1/runs/{run_id}/feedback", json={"right": False, "by": "ann", "note": text, "expected": {"x": text}}
        )
        trace = client.get(f"/traces/{trace_id}")
        spans = re.findall(rf'href="(/traces/{trace_id}/spans/[0-9a-f]+)"', trace.text)
        responses = [
            trace,
            *(client.get(path) for path in ("/runs", f"/runs/{run_id}", "/traces", "/cost?by=user", *spans)),
        ]
        responses.append(client.get(f"/runs?agent={quote(text)}"))
    assert len(spans) == 4
    for response in responses:
        assert response.status_code == 200
        for raw in ("<script>alert", "<img src=x", "\x1b", "\u202e", "\u200b"):
            assert raw not in response.text, response.url
        assert not re.search(r'(href|src|action)="\s*javascript', response.text)
    run_text = text_of(responses[2])
    assert str(sanitize_value(f"You said: order {text}")) in run_text
    assert "order 1042: <script>alert(1)</script>" in "".join(text_of(response) for response in responses)


@given(st.text())
def test_sanitized_text_has_no_control_characters(text: str) -> None:
    """No control character, direction mark or lone surrogate is left in any text, and plain text is unchanged."""
    sanitized = sanitize_value(text)
    assert not [
        c
        for c in sanitized
        if (ord(c) < 32 and c not in "\t\n\r") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000
    ]
    assert not set(sanitized) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\ufeff")
    plain = "".join(c for c in text if c.isascii() and c.isprintable())
    assert sanitize_value(plain) == plain


def test_a_bind_policy_has_no_defaults() -> None:
    """Every field of a policy must be given, so that nothing is open by omission."""
    with pytest.raises(TypeError):
        BindPolicy()  # type: ignore[call-arg]
