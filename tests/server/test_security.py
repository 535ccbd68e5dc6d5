"""What keeps others out, and what users and models wrote from being more than text."""

import re
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import Answered, Runtime, use_runtime
from handrail.access.login import new_person
from handrail.access.users import SESSION
from handrail.kernel.errors import BadInput, BadSettings
from handrail.server.bind_policy import Door, door_at
from handrail.server.middleware import MAX_BODY
from handrail.server.pages.login import own_path
from handrail.server.serving import nobody_comes_in
from handrail.server.text import shown
from handrail.testing import VirtualClock
from tests.server.conftest import make_key
from tests.server.page_reader import logged_in, send, text_of, token_in
from tests.server.serving import Served, served
from tests.server.shop import Shop
from tests.server.test_api import ASKED, RUNS, problem

PASSWORD = "correct horse battery staple"
NASTY = (
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


def csp_of(answer: httpx2.Response) -> dict[str, str]:
    rules = (rule.strip().partition(" ") for rule in answer.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in rules}


def test_every_answer_has_the_headers(local: Served) -> None:
    """Pages, problems, the API and files forbid what they do not need; only files may be kept by browsers."""
    with local.client() as client:
        for path in (*PAGES, "/login", "/nothing", "/v1/approvals", "/v1/nothing", "/static/handrail.css"):
            answer = client.get(path)
            rules = csp_of(answer)
            assert (rules["default-src"], rules["frame-ancestors"], rules["base-uri"]) == ("'none'",) * 3, path
            assert not [rule for rule in rules.values() if "unsafe" in rule or "http" in rule or "*" in rule], path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
            assert ("no-store" in answer.headers["cache-control"]) == ("/static/" not in path)


def test_pages_have_nothing_inline_and_fetch_nothing(local: Served) -> None:
    """No page has a script, a style or a handler in itself, and all that it names is this server's own."""
    with local.client() as client:
        client.post(RUNS, json=ASKED)
        for path in PAGES:
            text = client.get(path).text
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path
            assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", text))
            named = re.findall(r'(?:src|href|action)="([^"]*)"', text)
            assert [url for url in named if not re.match("/(?!/)|#", url)] == [], path


def test_another_name_for_this_machine_is_refused(local: Served) -> None:
    """A request that calls the local server by another name, as with DNS rebinding, is not answered."""
    with local.client() as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
            answer = client.get("/v1/approvals", headers={"host": host})
            assert answer.status_code in (400, 421), host
        for host in ("localhost", "127.0.0.1:8321", "LOCALHOST:1", "[::1]:8321"):
            assert client.get("/v1/approvals", headers={"host": host}).status_code == 200, host


def test_another_sites_page_cannot_write(local: Served) -> None:
    """What a page of another origin sends is refused before it is read, for the API as for forms."""
    origins = ("https://evil.example", "null", "http://127.0.0.1:1", "http://")
    with local.client() as client:
        for headers in ({"origin": each} for each in origins):
            problem(client.post(RUNS, json=ASKED, headers=headers), 421, "wrong_host")
        for headers in ({"sec-fetch-site": each} for each in ("cross-site", "same-site")):
            problem(client.post(RUNS, json=ASKED, headers=headers), 421, "wrong_host")
            assert client.post("/runs/run_0/verdict", headers=headers).status_code == 421


def test_a_plain_text_body_is_no_request(local: Served) -> None:
    """JSON that comes as text, which another site's page may send without asking, is not read as JSON."""
    with local.client() as client:
        answer = client.post(RUNS, content=b'{"input": "x", "user": "u"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 422


def test_a_form_needs_its_token(local: Served) -> None:
    """A form without the token of its page, or with another visitor's, does nothing."""
    with local.client() as client, local.client() as other:
        run_id = client.post(RUNS, json=ASKED).json()["run_id"]
        theirs = token_in(other.get(f"/runs/{run_id}"))
        for token in ({}, {"form_token": "0" * 64}, {"form_token": theirs}):
            answer = client.post(f"/runs/{run_id}/verdict", data={"right": "yes", **token})
            assert (answer.status_code, "load it again" in answer.text) == (403, True)
        assert client.get(f"/v1/runs/{run_id}").json()["verdicts"] == []
        assert send(client, f"/runs/{run_id}", f"/runs/{run_id}/verdict", right="yes").status_code == 303
        assert client.get(f"/v1/runs/{run_id}").json()["verdicts"][0]["right"] is True


def test_elsewhere_everything_needs_a_login(public: Served) -> None:
    """On an address that others reach, every page leads to the login, and the API asks for a key."""
    with public.client() as client:
        for path in (*PAGES, "/runs/run_0", "/inbox/appr_0", "/traces/ab", "/traces/ab/spans/cd"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["location"].startswith("/login")) == (303, True), path
        for path in ("/runs/run_0/verdict", "/inbox/appr_0"):
            assert client.post(path, data={"form_token": "0" * 64}).status_code == 401, path
        problem(client.get("/v1/approvals"), 401, "wrong_credentials")


def test_logging_in_and_out(public: Served, runtime: Runtime, clock: VirtualClock) -> None:
    """A login leads back to where it was asked for; the session ends with its time, and when it is logged out."""
    runtime.database.write_now(new_person("ann", PASSWORD, None, clock.now()))
    with public.client() as client:
        asked = client.get("/runs?agent=shop").headers["location"]
        wrong = send(client, asked, "/login", name="ann", password="wrong")
        assert (wrong.status_code, "do not go together" in wrong.text, "wrong" in text_of(wrong)) == (401, True, False)
        answer = client.post(
            "/login",
            data={"form_token": token_in(wrong), "name": "ann", "password": PASSWORD, "to": "/runs?agent=shop"},
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/runs?agent=shop")
        [cookie] = [each for each in answer.headers.get_list("set-cookie") if each.startswith("handrail=")]
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        assert client.get("/runs").status_code == 200
        token = client.cookies["handrail"]
        assert send(client, "/runs", "/logout").headers["location"] == "/login"
        assert client.get("/runs", headers={"cookie": f"handrail={token}"}).status_code == 303
    with logged_in(public, "ann", PASSWORD) as client:
        clock.advance(SESSION.total_seconds())
        assert client.get("/runs").status_code == 303


def test_guessing_is_slowed_down(public: Served, runtime: Runtime) -> None:
    """After a few wrong passwords the login page says when to try again."""
    runtime.database.write_now(new_person("ann", PASSWORD, None, runtime.clock.now()))
    with public.client() as client:
        answers = [send(client, "/login", "/login", name="ann", password="wrong") for _ in range(6)]
    assert [each.status_code for each in answers] == [401] * 5 + [429]
    assert "try again after" in text_of(answers[-1])


def test_behind_tls_cookies_are_bound_to_it(runtime: Runtime, shop: Shop) -> None:
    """With a public https address cookies carry `Secure` and the prefix that binds them to the host."""
    door = door_at("127.0.0.1", "https://handrail.example")
    with served(runtime, shop.find, door) as server, server.client() as client:
        answer = client.get("/login", headers={"host": "handrail.example"})
        assert client.get("/login").status_code == 421
    [cookie] = answer.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-handrail-form=")
    assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("address", "public_url", "is_open"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("192.0.2.7", None, False),
        ("handrail.example", None, False),
        ("127.0.0.1", "https://handrail.example", False),
    ],
)
def test_only_this_machine_needs_no_login(
    runtime: Runtime, address: str, public_url: str | None, is_open: bool
) -> None:
    """Any address that others reach, and any proxy, needs a login, and refuses to start while nobody could log in."""
    door = door_at(address, public_url)
    assert door.is_open is is_open
    if is_open:
        nobody_comes_in(runtime, door)
    else:
        with pytest.raises(BadSettings, match="handrail people add"):
            nobody_comes_in(runtime, door)
        make_key(runtime, "acme", "read")
        nobody_comes_in(runtime, door)


@pytest.mark.parametrize("url", ["handrail.example", "ftp://handrail.example", "https://", "https://a/b"])
def test_a_public_url_is_an_address(url: str) -> None:
    """What is no http or https address of a host is refused."""
    with pytest.raises(BadInput, match="--public-url"):
        door_at("127.0.0.1", url)


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a\nb", "", "x"]
)
def test_a_login_leads_nowhere_else(path: str) -> None:
    """An address to go on to that is not a path of this site becomes the first page."""
    assert own_path(path) == "/"
    assert own_path("/runs?agent=a") == "/runs?agent=a"


def test_large_bodies_are_refused(local: Served) -> None:
    """A body above the limit is a 413, whether it says its length beforehand or not."""
    with local.client() as client:
        large = b" " * (MAX_BODY + 1)
        headers = {"content-type": "application/json"}
        problem(client.post(RUNS, content=large, headers=headers), 413, "too_large")
        pieces = (large[start : start + 65_536] for start in range(0, len(large), 65_536))
        problem(client.post(RUNS, content=pieces, headers=headers), 413, "too_large")


async def _with_nasty(runtime: Runtime, shop: Shop, text: str) -> tuple[str, str]:
    """A run in which the user, the tool and the model all say `text`; its id and its trace's."""
    with use_runtime(runtime):
        outcome = await shop.find("shop").run(f"order {text}", user=text if text.isprintable() else "u", tenant="acme")
    assert isinstance(outcome, Answered)
    return outcome.facts.run_id, outcome.facts.trace_id


@pytest.mark.parametrize("text", NASTY)
async def test_what_people_and_models_wrote_is_text(runtime: Runtime, shop: Shop, local: Served, text: str) -> None:
    """Markup, addresses, templates, terminal codes and marks that turn text around come out as what they are."""
    run_id, trace_id = await _with_nasty(runtime, shop, text)
    with local.client() as client:
        client.post(
            f"/v1/runs/{run_id}/feedback", json={"right": False, "by": "ann", "note": text, "should": {"x": text}}
        )
        trace = client.get(f"/traces/{trace_id}")
        spans = re.findall(rf'href="(/traces/{trace_id}/spans/[0-9a-f]+)"', trace.text)
        answers = [
            trace,
            *(client.get(path) for path in ("/runs", f"/runs/{run_id}", "/traces", "/cost?by=user", *spans)),
        ]
        answers.append(client.get(f"/runs?agent={quote(text)}"))
    assert len(spans) == 4
    for answer in answers:
        assert answer.status_code == 200
        for raw in ("<script>alert", "<img src=x", "\x1b", "\u202e", "\u200b"):
            assert raw not in answer.text, answer.url
        assert not re.search(r'(href|src|action)="\s*javascript', answer.text)
    said = text_of(answers[2])
    assert str(shown(f"You said: order {text}")) in said
    assert "order 1042: <script>alert(1)</script>" in "".join(text_of(answer) for answer in answers)


@given(st.text())
def test_shown_text_has_nothing_to_obey(text: str) -> None:
    """Whatever the text, no control character, direction mark or half a character is left, and plain text stays."""
    found = shown(text)
    assert not [
        c for c in found if (ord(c) < 32 and c not in "\t\n\r") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000
    ]
    assert not set(found) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\ufeff")
    plain = "".join(c for c in text if c.isascii() and c.isprintable())
    assert shown(plain) == plain


def test_a_door_is_closed_by_default() -> None:
    """A door says in full whom it lets in; none is open by leaving something out."""
    with pytest.raises(TypeError):
        Door()  # type: ignore[call-arg]
