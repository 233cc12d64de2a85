"""Stand-ins for programs, which write down how they were called; and a Docker engine that does."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer


def install(folder, *names):
    """Write programs with these names into a folder; return the file of their calls."""
    folder.mkdir(parents=True, exist_ok=True)
    calls = folder / "calls.jsonl"
    for name in names:
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            f"with open({str(calls)!r}, 'a') as file:\n"
            "    row = {'command': [os.path.basename(sys.argv[0]), *sys.argv[1:]]}\n"
            "    row['environment'] = dict(os.environ)\n"
            "    file.write(json.dumps(row) + '\\n')\n"
        )
        path.chmod(0o755)
    return calls


def rows_of(calls):
    return [json.loads(line) for line in Path(calls).read_text().splitlines()]


class DockerEngine(ThreadingMixIn, UnixStreamServer):
    """A server that Docker's own client takes for an engine; `created`: requests to create."""

    daemon_threads = True

    def __init__(self, socket):
        super().__init__(str(socket), Answer)
        self.created = []
        self.address = f"unix://{socket}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    """Answers of an engine to the requests of `docker create`."""

    def address_string(self):
        return "socket"

    def log_message(self, *_):
        pass

    def answer(self, code, body):
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Api-Version", "1.49")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self):
        self.answer(200, {})

    do_GET = do_HEAD

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.created.append(body | {"request": self.path})
        self.answer(201, {"Id": "c0ffee", "Warnings": []})
