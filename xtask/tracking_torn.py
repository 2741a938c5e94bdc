"""Cuts the files of RUN/tracking at random bytes and lets the official readers read what is left: every whole record,
and nothing else. Same environment as tracking_check.py.

    venv/bin/python xtask/tracking_torn.py RUN [CUTS]
"""

import logging
import pathlib
import random
import struct
import sys
import tempfile


def wandb_count(path):
    import wandb

    wandb._assert_is_internal_process = True
    from wandb.proto import wandb_internal_pb2 as pb
    from wandb.sdk.internal.datastore import DataStore

    store, n = DataStore(), 0
    store.open_for_scan(str(path))
    while True:
        try:
            data = store.scan_data()
        except (AssertionError, struct.error):
            return n
        if data is None:
            return n
        pb.Record().ParseFromString(data)
        n += 1


def tensorboard_count(path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sum(1 for _ in EventFileLoader(str(path)).Load())


def wandb_ends(data):
    """Where whole records end, from the framing alone."""
    ends, at = [], 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at:at + 7])
        at += 7 + length
        if kind in (1, 4):
            ends.append(at)
    return ends


def tensorboard_ends(data):
    ends, at = [], 0
    while at < len(data):
        at += 16 + struct.unpack("<Q", data[at:at + 8])[0]
        ends.append(at)
    return ends


def main():
    logging.disable(logging.CRITICAL)
    run, cuts = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    draw, wrong = random.Random(1), 0
    kinds = [("wandb/*/*.wandb", wandb_ends, wandb_count),
             ("tensorboard/*/events*", tensorboard_ends, tensorboard_count)]
    for pattern, ends_of, count in kinds:
        source = sorted((run / "tracking").glob(pattern))[0]
        data = source.read_bytes()
        ends, right = ends_of(data), 0
        for _ in range(cuts):
            cut = draw.randrange(ends[0], len(data))
            with tempfile.TemporaryDirectory() as scratch:
                copy = pathlib.Path(scratch) / source.name
                copy.write_bytes(data[:cut])
                got, want = count(copy), sum(e <= cut for e in ends)
            right += got == want
            if got != want:
                print(f"{source.name} cut at {cut}: {got} records read of {want}")
        wrong += cuts - right
        print(f"{source.name}: {len(ends)} records; {right} of {cuts} cuts read to the last whole record")
    sys.exit(bool(wrong))


main()
