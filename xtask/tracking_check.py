"""Reads RUN/tracking with the official readers and compares every number with the JSONL logs.

    python -m venv venv && venv/bin/pip install "wandb==0.19.11" tensorboard numpy
    ecr run smoke --set track.wandb=true --set track.tensorboard=true --out RUN
    venv/bin/python xtask/tracking_check.py RUN

wandb 0.19.11 is the last whose reader of .wandb files is Python; newer ones read them in wandb-core alone, see
tracking_sync.py. Equal means: W&B's JSON numbers are the log's; TensorBoard's are the log's rounded to 32 bits;
histograms are numpy's of the log's lists; tables hold the log's samples; sha256 and size are those of the files.
Ends with 1 if anything differs.
"""

import collections
import hashlib
import json
import pathlib
import sys

import numpy as np


def flat(record, prefix=""):
    for key, value in record.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def expected(logs):
    """Series -> list of (step, {name: value}); samples -> (series, step, [records])."""
    series, samples = collections.OrderedDict(), collections.OrderedDict()
    for path in sorted(logs.glob("*.metrics.jsonl")):
        stage = path.name.removesuffix(".metrics.jsonl")
        for line in path.read_text().splitlines():
            record = json.loads(line)
            name = f"{stage}_trial_{record.pop('trial')}" if "trial" in record else stage
            step = record.pop("step")
            said = {k: v for k, v in flat(record) if v is not None and v != [] and not isinstance(v, bool)}
            series.setdefault(name, []).append((step, said))
    for path in sorted(logs.glob("*.samples.jsonl")):
        stage = path.name.removesuffix(".samples.jsonl")
        for line in path.read_text().splitlines():
            record = json.loads(line)
            samples.setdefault(stage, collections.OrderedDict()).setdefault(record["step"], []).append(record)
    return series, samples


class Count:
    def __init__(self):
        self.equal, self.wrong = collections.Counter(), []

    def same(self, kind, ok, what):
        if ok:
            self.equal[kind] += 1
        else:
            self.wrong.append(f"{kind}: {what}")


def wandb_records(root):
    import wandb

    wandb._assert_is_internal_process = True
    from wandb.proto import wandb_internal_pb2 as pb
    from wandb.sdk.internal.datastore import DataStore

    for directory in sorted(root.glob("offline-run-*")):
        (file,) = directory.glob("*.wandb")
        store = DataStore()
        store.open_for_scan(str(file))
        while True:
            try:
                data = store.scan_data()
            except AssertionError as e:
                # What `wandb sync` of that version does with an incomplete end.
                print(f"  {file.name}: the end is incomplete ({e})")
                break
            if data is None:
                break
            record = pb.Record()
            record.ParseFromString(data)
            yield directory, record


def check_wandb(root, series, samples, count):
    rows, files, ids, config, summary, kinds = [], [], set(), {}, {}, collections.Counter()
    for directory, record in wandb_records(root):
        kinds[record.WhichOneof("record_type")] += 1
        if record.HasField("run"):
            ids.add(record.run.run_id)
            config.update({i.key: json.loads(i.value_json) for i in record.run.config.update})
        if record.HasField("history"):
            row = collections.OrderedDict()
            for item in record.history.item:
                row[tuple(item.nested_key) or (item.key,)] = json.loads(item.value_json)
            count.same("step", row[("_step",)] == record.history.step.num == len(rows), f"_step of row {len(rows)}")
            rows.append((directory, row))
        for item in record.summary.update if record.HasField("summary") else []:
            summary[tuple(item.nested_key) or (item.key,)] = json.loads(item.value_json)
        files += [(directory, f.path) for f in record.files.files] if record.HasField("files") else []
    count.same("run id", len(ids) == 1, f"ids {ids}")
    for name, points in series.items():
        mine = [r for _, r in rows if (f"{name}/step",) in r and (f"{name}/samples", "_type") not in r]
        count.same("series", len(mine) == len(points), f"{name}: {len(mine)} rows for {len(points)} records")
        for (step, record), row in zip(points, mine):
            count.same("step", row[(f"{name}/step",)] == step, f"{name} step {step}")
            for key, value in record.items():
                tag = f"{name}/{key}"
                if isinstance(value, list) and isinstance(value[0], str):
                    count.same("text", row.get((tag,)) == ", ".join(value), f"{tag} step {step}")
                elif isinstance(value, list):
                    counts, edges = np.histogram(value, bins=30)
                    got = row.get((tag, "values")), row.get((tag, "bins")), row.get((tag, "_type"))
                    ok = got[2] == "histogram" and got[0] == counts.tolist() and np.allclose(got[1], edges, rtol=1e-12)
                    count.same("histogram", ok, f"{tag} step {step}")
                else:
                    count.same("number", row.get((tag,)) == value, f"{tag} step {step}: {row.get((tag,))} for {value}")
        last = points[-1][1]
        for key, value in last.items():
            if not isinstance(value, list):
                count.same("summary", summary.get((f"{name}/{key}",)) == value, f"{name}/{key}")
    for stage, steps in samples.items():
        tag = f"{stage}/samples"
        mine = [(d, r) for d, r in rows if (tag, "_type") in r]
        count.same("series", len(mine) == len(steps), f"{tag}: {len(mine)} tables for {len(steps)} steps")
        for (step, lines), (directory, row) in zip(steps.items(), mine):
            data = (directory / "files" / row[(tag, "path")]).read_bytes()
            ok = hashlib.sha256(data).hexdigest() == row[(tag, "sha256")] and len(data) == row[(tag, "size")]
            count.same("file", ok and (directory, row[(tag, "path")]) in files, row[(tag, "path")])
            table = json.loads(data)
            ok = (row[(tag, "nrows")], row[(tag, "ncols")]) == (len(table["data"]), len(table["columns"]))
            count.same("table", ok and len(lines) == len(table["data"]), f"{tag} step {step}: size")
            for line, cells in zip(lines, table["data"]):
                got = dict(zip(table["columns"], cells))
                want = {"reply": line["reply"], "step": step, "reward/total": line["reward"]["total"]}
                for part in line["reward"]["parts"]:
                    want |= {f"reward/{part['name']}/{k}": v for k, v in part.items() if k != "name"}
                count.same("cells", all(got.get(k) == v for k, v in want.items()), f"{tag} step {step}")
    count.same("config", "run" in config and "seed" in config["run"], "no run.seed")
    print(f"  records: {dict(kinds)}; {len(ids)} id, {len(rows)} rows")


def check_tensorboard(root, series, samples, count):
    from tensorboard.backend.event_processing import event_accumulator as ea

    run = max(root.glob("run-*"), key=lambda p: int(p.name.removeprefix("run-")))
    acc = ea.EventAccumulator(str(run), size_guidance={ea.SCALARS: 0, ea.TENSORS: 0, ea.COMPRESSED_HISTOGRAMS: 0,
                                                       ea.HISTOGRAMS: 0})
    acc.Reload()
    scalars = set(acc.Tags()["scalars"])
    for name, points in series.items():
        want = collections.defaultdict(list)
        for step, record in points:
            for key, value in record.items():
                want[key].append((step, value))
        for key, values in want.items():
            tag = f"{name}/{key}"
            if any(isinstance(v, str) or v and isinstance(v, list) and isinstance(v[0], str) for _, v in values):
                count.same("text", len(acc.Tensors(tag)) == len(values), tag)
                continue
            if isinstance(values[0][1], list):
                got = acc.Histograms(tag)
                count.same("series", len(got) == len(values), f"{tag}: {len(got)} for {len(values)}")
                for (step, value), h in zip(values, got):
                    counts, edges = np.histogram(value, bins=30)
                    v = h.histogram_value
                    ok = h.step == step and list(v.bucket) == counts.tolist() and v.num == len(value)
                    ok = ok and np.allclose(v.bucket_limit, edges[1:]) and np.isclose(v.sum, sum(value))
                    count.same("histogram", ok, f"{tag} step {step}")
                continue
            got = acc.Scalars(tag) if tag in scalars else []
            count.same("series", len(got) == len(values), f"{tag}: {len(got)} for {len(values)}")
            for (step, value), s in zip(values, got):
                ok = s.step == step and np.float32(s.value) == np.float32(value)
                count.same("number", ok, f"{tag} step {step}: {s.value} for {value}")
    for stage, steps in samples.items():
        got = acc.Tensors(f"{stage}/samples")
        count.same("series", len(got) == len(steps), f"{stage}/samples: {len(got)} texts for {len(steps)} steps")
        for (step, lines), t in zip(steps.items(), got):
            text = t.tensor_proto.string_val[0].decode()
            ok = t.step == step and len(text.splitlines()) == len(lines) + 2
            count.same("text", ok and all(clean(line["reply"]) in text for line in lines), f"{stage} step {step}")
    texts = acc.PluginTagToContent("text")
    count.same("config", "config" in texts and b"run.seed" in acc.Tensors("config")[0].tensor_proto.string_val[0],
               "no config text")


def clean(text):
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def main():
    run = pathlib.Path(sys.argv[1])
    series, samples = expected(run / "logs")
    lines = sum(len(p) for p in series.values()) + sum(len(r) for s in samples.values() for r in s.values())
    print(f"{run}: {lines} log records in {len(series)} series and samples of {list(samples)}")
    wrong = 0
    for name, check in [("wandb", check_wandb), ("tensorboard", check_tensorboard)]:
        root = run / "tracking" / name
        if not root.exists():
            print(f"{name}: not tracked")
            continue
        count = Count()
        check(root, series, samples, count)
        print(f"{name}: equal {dict(count.equal)}; different {len(count.wrong)}")
        for what in count.wrong[:20]:
            print(f"  {what}")
        wrong += len(count.wrong)
    sys.exit(bool(wrong))


main()
