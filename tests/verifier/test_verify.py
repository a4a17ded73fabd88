"""What the verifier of strangers finds, and what it refuses: run by the end-to-end tests with the bundles of the console."""

import argparse
import hashlib
import io
import pathlib
import tempfile
import unittest
import zipfile

import verify

DATA = pathlib.Path(__file__).parents[2] / "console/tests/data"
# With the statements, what the verdict rests on. All other files are renderings for people.
AUTHORITIES = ("log.binpb", "charter.toml", "root.pem", "script.toml")


def files_of(bundle):
    with zipfile.ZipFile(DATA / bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files):
    """A bundle with these files, whose digests are right."""
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files) if name != "SHA256SUMS")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (files | {"SHA256SUMS": sums.encode()}).items():
            archive.writestr(name, content)
    return stream.getvalue()


def lines_of(content, **given):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "bundle.zip").write_bytes(content)
        options = argparse.Namespace(bundle=folder / "bundle.zip", charter=given.get("charter"), root=given.get("root"))
        return list(verify.verify(options, folder))


class Verifier(unittest.TestCase):
    def refuses(self, files, words, **given):
        try:
            lines = lines_of(packed(files), **given)
        except (verify.Refused, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return
        self.fail(f"{words}: {lines}")

    def test_bundles_of_the_console_hold(self):
        for bundle, checks in (("bundle.zip", 8), ("disputed/bundle.zip", 8), ("inventory/bundle.zip", 6)):
            self.assertEqual(len(lines_of((DATA / bundle).read_bytes())), checks, bundle)

    def test_disagreement_is_told(self):
        lines = lines_of((DATA / "disputed/bundle.zip").read_bytes())
        self.assertTrue(any("DISAGREES: arthur" in line for line in lines), lines)

    def test_changed_byte_of_what_decides_is_refused(self):
        files = files_of("bundle.zip")
        statements = [name for name in files if name.startswith("statements/")]
        for name in [*AUTHORITIES, *statements[:2], *statements[-2:]]:
            step = max(len(files[name]) // (16 if name == "log.binpb" else 2), 1)
            for at in range(step // 2, len(files[name]), step):
                changed = bytearray(files[name])
                changed[at] ^= 1
                self.refuses(files | {name: bytes(changed)}, f"{name}, byte {at}")

    def test_what_is_left_out_or_comes_twice_is_refused(self):
        files = files_of("bundle.zip")
        statement = next(name for name in files if "approve" in name and name.endswith(".sig"))
        self.refuses({name: content for name, content in files.items() if name != statement}, "a statement is gone")
        log, entries, at = files["log.binpb"], [], 0
        while at < len(log):
            size, start = verify.varint(log, at)
            entries.append(log[at : start + size])
            at = start + size
        self.refuses(files | {"log.binpb": b"".join(entries[:-30])}, "the log ends early")
        self.refuses(files | {"log.binpb": b"".join(entries[:5] + entries[6:])}, "an entry is gone")
        self.refuses(files | {"log.binpb": b"".join(entries[:5] + [entries[4]] + entries[5:])}, "an entry comes twice")
        self.refuses(files | {"log.binpb": b""}, "there is no log")

    def test_bundle_under_another_charter_or_root_is_refused(self):
        files = files_of("bundle.zip")
        self.refuses(files, "a charter from elsewhere", charter=DATA / "inventory/charter.toml")
        self.refuses(files, "a root from elsewhere", root=DATA / "inventory/root.pem")
        other = files_of("disputed/bundle.zip")
        self.refuses(files | {"log.binpb": other["log.binpb"]}, "another cluster's log")
        self.refuses(files | {name: other[name] for name in ("charter.toml", "root.pem")}, "another cluster's charter")


if __name__ == "__main__":
    unittest.main()
