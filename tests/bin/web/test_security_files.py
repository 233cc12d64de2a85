"""Files of the studio that others must not read, and paths that it must not follow."""

import os
import re
import stat
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient
from studio_client import TOKEN, studio_config

from visionloop.bin.web.app import COMPONENTS, STATIC, Pages, create_app
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.roots import resolve_below
from visionloop.bin.web.security.token import cookie_of, read_or_make_token
from visionloop.engine.errors import UserError


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_token_and_its_folder_are_for_their_owner_alone(tmp_path, open_umask):
    path = tmp_path / "studio" / "token"
    token = read_or_make_token(path)
    assert mode_of(path) == 0o600 and mode_of(path.parent) == 0o700
    assert len(token) >= 43 and re.fullmatch(r"[\w-]+", token)
    assert read_or_make_token(path) == token
    path.chmod(0o666)
    path.parent.chmod(0o777)
    assert read_or_make_token(path) == token
    assert mode_of(path) == 0o600 and mode_of(path.parent) == 0o700


def test_two_installations_have_different_tokens_and_cookies_do_not_tell_them(tmp_path):
    tokens = [read_or_make_token(tmp_path / name / "token") for name in "ab"]
    assert tokens[0] != tokens[1]
    assert cookie_of(tokens[0]) != cookie_of(tokens[1]) and tokens[0] not in cookie_of(tokens[0])


def test_an_empty_token_file_of_an_interrupted_start_is_filled(tmp_path):
    (tmp_path / "token").touch(mode=0o644)
    token = read_or_make_token(tmp_path / "token")
    assert len(token) >= 43 and mode_of(tmp_path / "token") == 0o600


def test_a_folder_of_others_is_neither_used_nor_changed(tmp_path):
    (tmp_path / "file").touch()
    tmp_path.chmod(0o777)
    with pytest.raises(UserError, match="other users may write"):
        read_or_make_token(tmp_path / "token")
    assert mode_of(tmp_path) == 0o777
    tmp_path.chmod(0o755)
    read_or_make_token(tmp_path / "token")
    assert mode_of(tmp_path / "token") == 0o600


@pytest.fixture
def root(tmp_path):
    """A root with a file, beside a secret that links in the root lead to."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inside").mkdir(parents=True)
    (root / "inside" / "file").touch()
    outside.mkdir()
    (outside / "secret").touch()
    (root / "link").symlink_to(outside)
    (root / "inside" / "file-link").symlink_to(outside / "secret")
    (root / "dangling").symlink_to(outside / "not-there")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to(root / "loop")
    (root / "good").symlink_to("inside")
    (tmp_path / "root-beside").mkdir()
    return root


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../outside/secret",
        "inside/../../outside",
        "inside/../../root-beside",
        "/etc/passwd",
        "/",
        "//etc/passwd",
        "/proc/self/environ",
        "link",
        "link/secret",
        "link/not-there",
        "inside/file-link",
        "dangling",
        "up/outside/secret",
        "{root}/../outside",
        "{root}-beside",
        "{root}/link/secret",
        "not-there/../../outside",
    ],
)
def test_paths_that_lead_out_of_the_roots_are_refused(root, path):
    with pytest.raises(Problem) as refused:
        resolve_below(path.replace("{root}", str(root)), [root], "data")
    assert (refused.value.status, refused.value.code) == (403, "outside_roots")


@pytest.mark.parametrize(
    "path",
    ["", "a\0b", "\0", "x" * 256, "x" * 5000, "/".join(["x" * 100] * 60), "loop/x", "\ud800"],
)
def test_a_text_that_is_no_path_is_wrong_input(root, path):
    with pytest.raises(Problem) as refused:
        resolve_below(path, [root], "data")
    assert (refused.value.status, refused.value.code) == (422, "bad_input")


@pytest.mark.parametrize("path", ["inside/file", "good/file", "{root}/inside/../inside/file"])
def test_paths_below_a_root_are_resolved(root, path):
    resolved = resolve_below(
        path.replace("{root}", str(root)), [root.parent / "outside", root], "x"
    )
    assert resolved == root / "inside" / "file"


def test_a_refusal_does_not_tell_if_a_file_outside_exists(root):
    answers = []
    for name in ("/etc/passwd", "/etc/not-there", "../outside/secret", "../outside/none"):
        with pytest.raises(Problem) as refused:
            resolve_below(name, [root], "data")
        answers.append((str(refused.value), refused.value.status, refused.value.hint))
    assert len(set(answers)) == 1


def test_no_root_allows_nothing():
    with pytest.raises(Problem) as refused:
        resolve_below("/tmp", [], "data")
    assert refused.value.code == "outside_roots"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    config = studio_config(tmp_path_factory.mktemp("studio"))
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Visionloop": "1"}
    client = TestClient(create_app(config, TOKEN), base_url="http://localhost", headers=headers)
    with client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/..%5capp.py",
        "/static/%2e%2e%2f%2e%2e%2f__init__.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/app.js%00.py",
        "/static/a%00.js",
        "/static/",
        "/static/pages",
        "/static/" + "x" * 300 + ".js",
        "/components/page.py",
        "/components/__init__.py",
        "/components/schema.json",
        "/components/page.html",
        "/components/README.md",
        "/components/../studio.py",
        "/components/%2e%2e/platform_contract/schema.json",
        "/components/",
    ],
)
def test_the_pages_serve_nothing_but_the_files_of_pages(client, path):
    response = client.get(path)
    assert response.status_code in (404, 405) or "<!doctype html>" in response.text.lower()
    assert "import " not in response.text and "root:" not in response.text


def test_a_link_among_the_pages_is_not_followed_outside(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "pages" / "link.js").symlink_to(tmp_path / "secret.js")
    assert Pages(directory=tmp_path / "pages").lookup_path("link.js") == ("", None)


class Inline(HTMLParser):
    """Collector of what the policy forbids in a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "script" and not attributes.get("src", "").startswith("/static/"):
            self.found.append(f"script {attributes}")
        if tag in ("style", "base", "iframe", "object", "embed", "form"):
            self.found.append(tag)
        self.found += [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            if re.match(r"(?i)\s*(javascript:|data:|https?:|//)", attributes.get(name) or ""):
                self.found.append(f"{name} {attributes[name]}")


def page_files(*suffixes):
    components = {path.name for path in COMPONENTS.iterdir() if path.suffix in suffixes}
    return [
        *(path for path in sorted(STATIC.rglob("*")) if path.suffix in suffixes),
        *(COMPONENTS / name for name in sorted(components)),
    ]


def test_no_page_has_inline_scripts_styles_or_handlers():
    pages = sorted(STATIC.rglob("*.html"))
    assert pages
    for page in pages:
        parser = Inline()
        parser.feed(page.read_text())
        assert parser.found == [], page


def test_no_script_turns_text_into_code_or_markup():
    scripts = page_files(".js")
    assert len(scripts) > 10
    forbidden = re.compile(
        r"\.(inner|outer)HTML\b|insertAdjacentHTML|document\.write|\beval\(|new Function\(|"
        r"\.srcdoc\b|createContextualFragment|DOMParser|setHTMLUnsafe|set(Timeout|Interval)\([\"'`]|"
        r"setAttribute\([\"']on|javascript:"
    )
    for script in scripts:
        assert not forbidden.search(script.read_text()), script


def test_no_page_file_names_another_host():
    # a namespace of SVG is a name, not an address that is asked
    namespace = re.compile(r"http://www\.w3\.org/(2000/svg|1999/xhtml|1999/xlink)")
    for path in page_files(".js", ".css", ".html", ".svg", ".webmanifest"):
        text = namespace.sub("", path.read_text())
        found = re.findall(r"https?://[^\s\"'`)]+", text)
        assert [url for url in found if "127.0.0.1" not in url and "localhost" not in url] == [], (
            path
        )
