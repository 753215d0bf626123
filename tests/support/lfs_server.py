"""A Git LFS server for tests, alongside git over HTTP, and a git-lfs that behaves like the real one during a fetch.

The program gets the login from git as git-lfs does, reads the batch API's response, and stores what it downloads.
Source: git-lfs, docs/api/batch.md.
"""

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROGRAM = r"""
import base64, json, os, subprocess, sys, urllib.error, urllib.parse, urllib.request

if sys.argv[1:] == ["version"]:
    sys.exit(print("git-lfs/3.3.0"))
assert sys.argv[1] == "fetch", sys.argv


def git(*argv, stdin=None):
    return subprocess.run(["git", *argv], input=stdin, capture_output=True, text=True, check=True).stdout


commit, remote = sys.argv[-1], git("config", "remote.origin.url").strip()
named = subprocess.run(["git", "config", "--blob", f"{commit}:.lfsconfig", "lfs.url"], capture_output=True, text=True)
endpoint = named.stdout.strip() or remote.removesuffix("/") + "/info/lfs"
wanted = []
for line in git("ls-tree", "-r", commit).splitlines():
    text = subprocess.run(["git", "cat-file", "blob", line.split()[2]], capture_output=True).stdout
    if text.startswith(b"version https://git-lfs.github.com/spec/v1\n") and len(text) < 1024:
        fields = dict(each.split(" ", 1) for each in text.decode().splitlines())
        wanted.append({"oid": fields["oid"].removeprefix("sha256:"), "size": int(fields["size"])})


def asked(url, data, header):
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/vnd.git-lfs+json", **header})
    try:
        return urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as error:
        if error.code != 401 or header:
            sys.exit(f"batch response: {'Server error' if error.code >= 500 else 'Client error'}: {url}")
    except urllib.error.URLError as error:
        sys.exit(f"batch request: {error}")
    parts = urllib.parse.urlsplit(url)
    question = f"protocol={parts.scheme}\nhost={parts.netloc}\n\n"
    done = subprocess.run(["git", "credential", "fill"], input=question, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"batch response: Git credentials for {url} not found.\n{done.stderr}")
    login = dict(line.split("=", 1) for line in done.stdout.splitlines())
    token = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()
    return asked(url, data, {"Authorization": f"Basic {token}"})


batch = {"operation": "download", "transfers": ["basic"], "objects": wanted}
answer = json.loads(asked(f"{endpoint}/objects/batch", json.dumps(batch).encode(), {}))
failed = False
for each in answer["objects"]:
    if "actions" not in each:
        failed = True
        print(f"[{each['oid']}] Object does not exist on the server", file=sys.stderr)
        continue
    action = each["actions"]["download"]
    content = asked(action["href"], None, action.get("header", {}))
    oid, folder = each["oid"], git("rev-parse", "--absolute-git-dir").strip()
    place = os.path.join(folder, "lfs/objects", oid[:2], oid[2:4])
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, oid), "wb") as file:
        file.write(content)
sys.exit(2 if failed else 0)
"""


def pointer(content: bytes) -> str:
    """Return the pointer that git stores instead of a file."""
    return (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n"
    )


def install_git_lfs(folder: Path) -> None:
    """Install a git-lfs into a folder for the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "git-lfs"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)


@dataclass
class LfsServer:
    """The content of the server, its responses, and the requests it received."""

    contents: list[bytes] = field(default_factory=list)
    check: Callable[[str, str], bool] = lambda _user, _password: True
    status: int = 200
    logins: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, login: str, body: bytes) -> tuple[int, bytes]:
        self.requests.append(f"{method} {path}")
        user, _, password = login.partition(":")
        if login:
            self.logins.append(login)
        known = {hashlib.sha256(content).hexdigest(): content for content in self.contents}
        if "/download/" in path:
            return 200, known[path.rpartition("/")[2]]
        if not login or not self.check(user, password):
            return (401 if not login else 403), b""
        if self.status != 200:
            return self.status, b""
        objects = [
            {**each, "actions": {"download": {"href": f"{self.url}/download/{each['oid']}"}}}
            if each["oid"] in known
            else {**each, "error": {"code": 404, "message": "not there"}}
            for each in json.loads(body)["objects"]
        ]
        return 200, json.dumps({"transfer": "basic", "objects": objects}).encode()


@contextmanager
def lfs_server(server: LfsServer) -> Iterator[str]:
    """Yield the URL of a Git LFS server."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            sent = self.headers.get("Authorization", "").removeprefix("Basic ")
            status, content = server.answer(self.command, self.path, base64.b64decode(sent).decode(), body)
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="lfs"')
            self.send_header("Content-Type", "application/vnd.git-lfs+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    with http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.url
        finally:
            http.shutdown()
            thread.join()
