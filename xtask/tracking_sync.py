"""Uploads RUN/tracking/wandb with the official `wandb sync` to a pretended server on this machine, and compares what
arrives with the JSONL logs.

    python -m venv venv && venv/bin/pip install "wandb==0.31.0"
    venv/bin/python xtask/tracking_sync.py RUN

The directories are copied first: `wandb sync` marks what it has uploaded. The server answers as little of the GraphQL
API as that takes; it shows that the official reader (wandb-core) takes every record, not what the web page makes of it.
"""

import gzip
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    streams, files, runs = [], {}, []

    def log_message(self, *_):
        pass

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        data = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def do_GET(self):
        self.answer({})

    def do_PUT(self):
        self.files[self.path.removeprefix("/up/")] = self.body()
        self.answer({})

    def do_POST(self):
        data = json.loads(self.body())
        if not self.path.endswith("/graphql"):
            self.streams.append(data)
            return self.answer({"exitcode": None, "limits": {}})
        name, v = data.get("operationName"), data.get("variables") or {}
        if name == "UpsertBucket":
            self.runs.append(v)
            project = {"id": "p", "name": v.get("project"), "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "QnVja2V0", "name": v.get("name"), "displayName": v.get("displayName"),
                      "config": v.get("config"), "historyLineCount": 0, "project": project}
            return self.answer({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        if name == "CreateRunFiles":
            port = self.server.server_port
            files = [{"name": f, "uploadUrl": f"http://127.0.0.1:{port}/up/{f}"} for f in v["files"]]
            return self.answer({"data": {"createRunFiles": {"runID": "QnVja2V0", "uploadHeaders": [], "files": files}}})
        if name == "ServerFeaturesQuery":
            return self.answer({"data": {"serverInfo": {"features": []}}})
        self.answer({"data": {}})


def flat(record, prefix=""):
    for key, value in record.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def main():
    run = pathlib.Path(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wandb = pathlib.Path(sys.executable).with_name("wandb")
    with tempfile.TemporaryDirectory() as scratch:
        for directory in sorted((run / "tracking/wandb").glob("offline-run-*")):
            copy = shutil.copytree(directory, pathlib.Path(scratch) / directory.name)
            env = dict(os.environ, WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}", WANDB_API_KEY="0" * 40)
            done = subprocess.run([wandb, "sync", copy], env=env, capture_output=True, text=True, timeout=300)
            said = (done.stdout + done.stderr).strip()
            print(f"wandb sync {directory.name}: exit {done.returncode}\n  " + said.replace("\n", "\n  "))
            if done.returncode:
                sys.exit(1)
    history, summary, exits = [], {}, []
    for s in Server.streams:
        files = s.get("files") or {}
        history += [json.loads(line) for line in files.get("wandb-history.jsonl", {}).get("content", [])]
        for line in files.get("wandb-summary.json", {}).get("content", []):
            summary = json.loads(line)
        if s.get("exitcode") is not None:
            exits.append(s["exitcode"])
    steps = [r["_step"] for r in history]
    equal = wrong = 0
    for path in sorted((run / "logs").glob("*.metrics.jsonl")):
        stage = path.name.removesuffix(".metrics.jsonl")
        series = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            name = f"{stage}_trial_{record.pop('trial')}" if "trial" in record else stage
            series.setdefault(name, []).append(record)
        for name, records in series.items():
            rows = [r for r in history if f"{name}/step" in r and f"{name}/samples" not in r]
            if len(rows) != len(records):
                wrong += 1
                print(f"{name}: {len(rows)} rows for {len(records)} records")
            for record, row in zip(records, rows):
                for key, value in flat(record):
                    if value is None or isinstance(value, list):
                        continue
                    if row.get(f"{name}/{key}") == value:
                        equal += 1
                    else:
                        wrong += 1
                        print(f"{name}/{key}: {row.get(f'{name}/{key}')} for {value}")
    if steps != list(range(len(steps))):
        wrong += 1
        print(f"steps {steps}")
    tables = [v for r in history for v in r.values() if isinstance(v, dict) and v.get("_type") == "table-file"]
    lost = [t["path"] for t in tables if len(Server.files.get(t["path"], b"")) != t["size"]]
    ids = {r.get("name") for r in Server.runs}
    config = json.loads(next(r["config"] for r in Server.runs if r.get("config")))
    print(f"{len(history)} rows, {len(ids)} id, {len(config)} sections of configuration, {len(summary)} keys of summary, "
          f"{len(tables)} tables of which {len(lost)} files are missing, exit codes {exits}")
    print(f"numbers equal to the JSONL: {equal}; different: {wrong}")
    sys.exit(bool(wrong or lost or len(ids) != 1))


main()
