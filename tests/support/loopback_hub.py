"""A server on the loopback address that speaks as much of the Hugging Face Hub's API as push and load need."""

import base64
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub:
    """Context manager; `files[repo_id][path]` is what was pushed, `endpoint` goes into HF_ENDPOINT.

    Args:
        fault: what every call is answered with: a status, "dropped" (the connection closes), "HTML" (a page in place of
            JSON), "silent" (for a minute); None is a Hub that works.
        after: how many calls are answered well first.
    """

    def __init__(self, fault: int | str | None = None, after: int = 0) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.fault, self.after = fault, after

    def __enter__(self) -> "LoopbackHub":
        hub = self

        class Handler(_Handler):
            files, state = hub.files, hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    files: dict[str, dict[str, bytes]]
    state: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, data: object, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(data).encode(), Content_Type="application/json", **headers)

    def _faulty(self) -> bool:
        """Whether this call was answered with the fault."""
        self.state.after -= 1
        if self.state.fault is None or self.state.after >= 0:
            return False
        if self.state.fault == "dropped":
            self.close_connection = True
            self.connection.close()
        elif self.state.fault == "silent":
            time.sleep(60)
        elif self.state.fault == "HTML":
            self._send(200, b"<html><body>Please log in to this network.</body></html>", Content_Type="text/html")
        else:
            self._json({"error": "said no"}, int(self.state.fault))
        return True

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        if self._faulty():
            return
        if path == "/api/repos/create":
            request = json.loads(body)
            owner = request.get("organization") or "me"
            repo = f"{owner}/{request['name']}"
            self.files.setdefault(repo, {})
            self._json({"url": f"http://{self.headers['Host']}/{repo}", "name": repo, "id": repo})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/commit/", path):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[match[1]][value["path"]] = base64.b64decode(value["content"])
            url = f"http://{self.headers['Host']}/{match[1]}/commit/{COMMIT}"
            self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        else:
            self._json({"error": f"no such call {path}"}, 404)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self._faulty():
            return
        if path == "/api/whoami-v2":
            self._json({"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)(/.*)?$", path):
            self._model(match[1], match[2] or "")
        elif match := re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path):
            self._file(match[1], match[2])
        else:
            self._json({"error": "not found"}, 404)

    do_HEAD = do_GET

    def _model(self, repo: str, rest: str) -> None:
        if repo not in self.files:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        names = self.files[repo]
        if rest.startswith("/tree/"):
            self._json([{"type": "file", "path": n, "size": len(c), "oid": _etag(c)} for n, c in names.items()])
        else:
            self._json({"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                        "likes": 0, "siblings": [{"rfilename": n} for n in names]})  # fmt: skip

    def _file(self, repo: str, name: str) -> None:
        content = self.files.get(repo, {}).get(name)
        if content is None:
            code = "EntryNotFound" if repo in self.files else "RepoNotFound"
            self._json({"error": code}, 404, X_Error_Code=code, X_Repo_Commit=COMMIT)
            return
        self._send(200, content, ETag=f'"{_etag(content)}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
