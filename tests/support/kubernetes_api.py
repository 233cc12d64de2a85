"""A stand-in of a Kubernetes API server that keeps objects, for kubectl itself to talk to.

It knows Jobs, JobSets and pods. Nothing runs: a test sets the status of an object.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
KINDS = {"jobs": ("batch/v1", "Job"), "jobsets": ("jobset.x-k8s.io/v1alpha2", "JobSet")}
KINDS["pods"] = ("v1", "Pod")
PATH = re.compile(r"/namespaces/([^/]+)/(jobs|jobsets|pods)(?:/([^/]+))?$")


def discovery(path):
    """Return the answer to a question about what there is, or None."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups = [api.split("/") for api, _ in KINDS.values() if "/" in api]
    if path == "/apis":
        rows = [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
            }
            for group, version in groups
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}
    api = path.removeprefix("/apis/").removeprefix("/api/")
    resources = [
        {
            "name": name,
            "singularName": kind.lower(),
            "namespaced": True,
            "kind": kind,
            "verbs": VERBS,
        }
        for name, (group, kind) in KINDS.items()
        if group == api
    ]
    if not resources:
        return None
    return {"kind": "APIResourceList", "groupVersion": api, "resources": resources}


class KubernetesApi(ThreadingHTTPServer):
    """The server; `objects`: {(namespace, resource, name): object}; `deleted`: (resource, name,
    options of the deletion), in order."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.objects, self.deleted, self.created = {}, [], 0
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    """Answers to discovery, get, list, create and delete."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body):
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def missing(self):
        self.answer(
            404,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
                "message": "not found",
            },
        )

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def place(self):
        found = PATH.search(urlsplit(self.path).path)
        return found.groups() if found else (None, None, None)

    def selected(self):
        """Keys of the objects that a request names."""
        namespace, resource, name = self.place()
        query = parse_qs(urlsplit(self.path).query)
        wanted = dict(
            pair.split("=") for text in query.get("labelSelector", ()) for pair in text.split(",")
        )
        return [
            key
            for key, item in self.server.objects.items()
            if key[:2] == (namespace, resource)
            and name in (None, key[2])
            and wanted.items() <= item["metadata"].get("labels", {}).items()
        ]

    def do_GET(self):
        if (found := discovery(urlsplit(self.path).path)) is not None:
            return self.answer(200, found)
        _, resource, name = self.place()
        keys = self.selected() if resource else []
        if name is not None:
            return self.answer(200, self.server.objects[keys[0]]) if keys else self.missing()
        if resource is None:
            return self.missing()
        api, kind = KINDS[resource]
        items = [self.server.objects[key] for key in keys]
        self.answer(200, {"apiVersion": api, "kind": f"{kind}List", "metadata": {}, "items": items})

    def do_POST(self):
        item = self.body()
        namespace, resource, _ = self.place()
        self.server.created += 1
        item["metadata"]["uid"] = f"uid-{self.server.created}"
        self.server.objects[namespace, resource, item["metadata"]["name"]] = item
        self.answer(201, item)

    def do_PATCH(self):
        self.body()
        self.answer(200, self.server.objects[self.selected()[0]])

    def do_DELETE(self):
        options, keys = self.body(), self.selected()
        for key in keys:
            self.server.deleted.append((*key[1:], options))
            del self.server.objects[key]
        status = {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        self.answer(200, status) if keys else self.missing()
