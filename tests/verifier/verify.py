"""Checks an evidence bundle of a key generation without any of this project's code.

It was written from ceremonies/FORMATS.md alone and stands for the verifier that a trustee, an auditor or a court may
have built by somebody else. It uses Python's standard library, `ssh-keygen` and `openssl`, and no network.

    python3 verify.py BUNDLE.zip [--charter CHARTER.toml] [--root ROOT.pem]

It prints a line for each thing it checked, and ends with status 1 and one line at the first that does not hold. Of other
kinds of ceremony it checks everything but what they made.
"""

import argparse
import base64
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile

MAX_BUNDLE = 256 * 1024 * 1024
NAMESPACE = "custody-ceremony"
KINDS = [None, "dkg", "test-sign", "amend", "refresh", "recover", "transfer", "rebuild", "inventory"]


class Refused(Exception):
    """What does not hold, in words."""


def check(holds, words):
    if not holds:
        raise Refused(words)


# FORMATS.md, "Hashes"


def of_parts(domain, *parts):
    digest = hashlib.sha256()
    for part in (domain.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


# Protobuf: a message is a list of (field, value); a value is an int or bytes.


def varint(data, at):
    value = shift = 0
    while True:
        check(at < len(data) and shift < 64, "a number is cut short")
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at


def message(data):
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        check(key & 7 in (0, 2), "a field has a type that no message has")
        value, at = varint(data, at)
        if key & 7 == 2:
            check(at + value <= len(data), "a field is cut short")
            value, at = data[at : at + value], at + value
        fields.setdefault(key >> 3, []).append(value)
    return fields


def one(fields, number, default=b""):
    return fields.get(number, [default])[-1]


def text(fields, number):
    return one(fields, number).decode()


def packed(fields, number):
    """A repeated number, packed or not."""
    numbers = []
    for value in fields.get(number, []):
        if isinstance(value, int):
            numbers.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = varint(value, at)
            numbers.append(number)
    return numbers


def times(scalar, point, add, result):
    """The multiple of a point of either curve, added up from nothing."""
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


# Ed25519, RFC 8032 section 5.1.7

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def edwards_add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    e, f = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = f - e, d - c, d + c, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def edwards_multiply(scalar, point):
    return times(scalar, point, edwards_add, (0, 1, 1, 0))


def edwards_decode(data):
    y, sign = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = edwards_decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def ed25519(key, signed, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    point, r, s = edwards_decode(key), edwards_decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if point is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + signed).digest(), "little") % L
    (x1, y1, z1, _), (x2, y2, z2, _) = edwards_multiply(s, BASE), edwards_add(r, edwards_multiply(k, point))
    return (x1 * z2 - x2 * z1) % P == 0 and (y1 * z2 - y2 * z1) % P == 0


def nkey(public):
    """The Ed25519 key in a NATS NKey of a user: base32 of a prefix byte, the key and a CRC-16."""
    raw = base64.b32decode(public + "=" * (-len(public) % 8))
    check(len(raw) == 35 and raw[0] == 20 << 3, f"{public} is not the NKey of a node")
    return raw[1:33]


# ECDSA and Shamir's scheme over secp256k1, SEC 1 and SEC 2

Q = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % Q == 0:
        return None
    if a == b:
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, Q)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, Q)
    x = (slope * slope - a[0] - b[0]) % Q
    return x, (slope * (a[0] - x) - a[1]) % Q


def multiply(scalar, point):
    return times(scalar, point, add, None)


def point(data):
    check(len(data) == 33 and data[0] in (2, 3), "a point is not in SEC 1's compressed form")
    x = int.from_bytes(data[1:], "big")
    y = pow(x**3 + 7, (Q + 1) // 4, Q)
    check(x < Q and (y * y - x**3 - 7) % Q == 0, "a point does not lie on secp256k1")
    return x, y if y & 1 == data[0] & 1 else Q - y


def ecdsa(key, digest, r, s):
    r, s = int.from_bytes(r, "big"), int.from_bytes(s, "big")
    if not (0 < r < N and 0 < s <= N // 2):
        return False
    inverse = pow(s, -1, N)
    z = int.from_bytes(digest, "big")
    found = add(multiply(z * inverse % N, G), multiply(r * inverse % N, key))
    return found is not None and found[0] % N == r


def interpolate(shares, x):
    """The value at x of the polynomial through these nodes' public shares."""
    total = None
    for i, share in shares.items():
        factor = 1
        for j in shares:
            if j != i:
                factor = factor * (x - j) * pow(i - j, -1, N) % N
        total = add(total, multiply(factor % N, share))
    return total


# CBOR as far as attestation documents use it, RFC 8949


def cbor(data, at=0):
    check(at < len(data), "an attestation document is cut short")
    kind, size = data[at] >> 5, data[at] & 31
    at += 1
    if kind == 7:
        check(size == 22, "an attestation document has a simple value other than null")
        return None, at
    if size >= 24:
        check(size <= 27, "an attestation document has a length of no known form")
        width = 1 << size - 24
        size, at = int.from_bytes(data[at : at + width], "big"), at + width
    if kind == 0:
        return size, at
    if kind in (2, 3):
        check(at + size <= len(data), "an attestation document is cut short")
        value = data[at : at + size]
        return (value if kind == 2 else value.decode()), at + size
    if kind == 4:
        items = []
        for _ in range(size):
            item, at = cbor(data, at)
            items.append(item)
        return items, at
    check(kind == 5, "an attestation document has a value of a kind that none has")
    pairs = {}
    for _ in range(size):
        key, at = cbor(data, at)
        pairs[key], at = cbor(data, at)
    return pairs, at


def header(kind, size):
    """The head of a CBOR item of at most 64 KiB."""
    if size < 24:
        return bytes([kind << 5 | size])
    return bytes([kind << 5 | 24, size]) if size < 256 else bytes([kind << 5 | 25]) + size.to_bytes(2, "big")


def der_integer(data):
    data = data.lstrip(b"\0") or b"\0"
    data = b"\0" + data if data[0] & 0x80 else data
    return b"\x02" + bytes([len(data)]) + data


def run(words, *command, given=None):
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    check(done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout


def pem(certificate):
    lines = base64.encodebytes(certificate).decode()
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"


def attestation(name, document, root, folder):
    """A document's fields, once its signature and its chain hold at the time that it claims."""
    items, end = cbor(document)
    check(end == len(document) and len(items) == 4 and items[0] == b"\xa1\x01\x38\x22", f"{name} is not signed with ES384")
    protected, _, payload, signature = items
    fields, end = cbor(payload)
    check(end == len(payload) and len(signature) == 96, f"{name} is malformed")
    signed = header(4, 4) + header(3, 10) + b"Signature1" + header(2, len(protected)) + protected
    signed += header(2, 0) + header(2, len(payload)) + payload
    numbers = der_integer(signature[:48]) + der_integer(signature[48:])
    files = {
        "leaf.pem": pem(fields["certificate"]),
        "between.pem": "".join(pem(certificate) for certificate in fields["cabundle"][1:]),
        "root.pem": root.decode(),
    }
    for file, content in files.items():
        (folder / file).write_text(content)
    (folder / "signature").write_bytes(b"\x30" + bytes([len(numbers)]) + numbers)
    key = run(f"{name}: its certificate", "openssl", "x509", "-in", folder / "leaf.pem", "-pubkey", "-noout")
    (folder / "key.pem").write_bytes(key)
    verifies = ("openssl", "dgst", "-sha384", "-verify", folder / "key.pem", "-signature", folder / "signature")
    run(f"{name}: its signature does not hold", *verifies, given=signed)
    chain = ["openssl", "verify", "-CAfile", folder / "root.pem", "-attime", str(fields["timestamp"] // 1000)]
    if files["between.pem"]:
        chain += ["-untrusted", folder / "between.pem"]
    run(f"{name}: its certificate does not lead to the root", *chain, folder / "leaf.pem")
    return fields


class Bundle:
    def __init__(self, path):
        check(path.stat().st_size <= MAX_BUNDLE, f"{path} is too large to be a bundle")
        with zipfile.ZipFile(path) as archive:
            check(sum(file.file_size for file in archive.infolist()) <= MAX_BUNDLE, f"{path} unpacks to too much")
            self.files = {name: archive.read(name) for name in archive.namelist()}

    def __getitem__(self, name):
        check(name in self.files, f"{name} is missing")
        return self.files[name]

    def check_sums(self):
        sums = dict(reversed(line.split("  ", 1)) for line in self["SHA256SUMS"].decode().splitlines())
        check(sums.keys() == self.files.keys() - {"SHA256SUMS"}, "SHA256SUMS does not name the files of the bundle")
        for name, digest in sums.items():
            check(hashlib.sha256(self[name]).hexdigest() == digest, f"{name} does not have the digest in SHA256SUMS")
        return f"{len(sums)} files have their digests"

    def messages(self, name):
        """The messages of a file that has the length of each before it."""
        data, at = self[name], 0
        while at < len(data):
            size, at = varint(data, at)
            check(at + size <= len(data), f"{name} is cut short")
            yield message(data[at : at + size])
            at += size


class Record:
    """The log of one ceremony and what a stranger can find out from it."""

    def __init__(self, bundle, charter, charter_hash, root):
        self.bundle, self.charter, self.charter_hash, self.root = bundle, charter, charter_hash, root
        self.nodes = {node["index"]: nkey(node["nkey"]) for node in charter["node"] if not node.get("excluded")}
        self.events, self.prev, self.time, self.ceremony = [], bytes(32), 0, None

    def check_chain(self):
        for seq, entry in enumerate(self.bundle.messages("log.binpb"), 1):
            raw, signature = one(entry, 1), one(entry, 2)
            body = message(raw)
            node = one(body, 6, 0)
            words = f"entry {seq}"
            check(one(body, 1, 0) == 1 and one(body, 3, 0) == seq, f"{words} has another version or place")
            check(one(body, 4) == self.prev, f"{words} does not follow the entry before it")
            check(node in self.nodes, f"{words} is by node {node}, which the charter does not name")
            signed = of_parts("custody/entry-author/v1", raw)
            check(ed25519(self.nodes[node], signed, signature), f"{words} is not signed by node {node}")
            self.ceremony = self.ceremony or text(body, 2)
            check(text(body, 2) == self.ceremony, f"{words} is of another ceremony")
            check(one(body, 5, 0) >= self.time, f"{words} is dated before the entry before it")
            self.prev, self.time = of_parts("custody/entry/v1", raw, signature), one(body, 5, 0)
            (kind, values), = message(one(body, 7)).items()
            self.events.append((kind, message(values[-1]), self.time))
        check(self.events, "log.binpb is empty")
        return f"{len(self.events)} entries follow one another, each signed by its node; head {self.prev.hex()}"

    def check_heads(self):
        rounds = {}
        for head in self.bundle.messages("heads.binpb"):
            raw = one(head, 1)
            body = message(raw)
            node, lock = one(body, 4, 0), message(one(body, 9))
            check(text(body, 2) == self.charter["cluster"], f"the head of node {node} is of another cluster")
            check(text(body, 3) == self.ceremony, f"the head of node {node} is of another ceremony")
            check(node in self.nodes, f"a head is by node {node}, which the charter does not name")
            signed = of_parts("custody/head/v1", raw)
            check(ed25519(self.nodes[node], signed, one(head, 2)), f"the head of node {node} is not signed by it")
            if one(lock, 2, 0) == len(self.events) and one(lock, 3) == self.prev:
                rounds.setdefault(one(lock, 1, 0), set()).add(node)
        most, members = max(map(len, rounds.values()), default=0), len(self.nodes)
        recorded = "recorded" if most >= (members + 1) // 2 + 1 else "NOT KNOWN TO BE RECORDED"
        return f"the whole log is {recorded}: {most} of {members} nodes are locked on its head"

    def of_kind(self, kind):
        return [(fields, at) for number, fields, at in self.events if number == kind]

    def check_manifest(self):
        check(self.events[0][0] == 1, "the first entry opens nothing")
        raw = one(self.events[0][1], 1)
        self.manifest = message(raw)
        self.manifest_hash = of_parts("custody/manifest/v1", raw)
        check(text(self.manifest, 2) == self.ceremony, "the manifest is of another ceremony")
        check(one(self.manifest, 6) == self.charter_hash, "the manifest names another charter")
        script = self.bundle["script.toml"]
        check(one(self.manifest, 8) == hashlib.sha256(script).digest(), "script.toml is not the manifest's script")
        return f"manifest {self.manifest_hash.hex()} of {self.ceremony}"

    def check_enclaves(self, folder):
        self.enclaves = {}
        allowed = self.charter["attestation"]["measurements"]
        for fields, at in self.of_kind(2):
            node, document = one(fields, 1, 0), one(fields, 2)
            name = f"the attestation of node {node}"
            shown = attestation(name, document, self.root, folder)
            pcrs = {f"pcr{index}": value.hex() for index, value in shown["pcrs"].items()}
            fits = [image for image in allowed if all(pcrs.get(pcr) == image[pcr] for pcr in ("pcr0", "pcr1", "pcr2"))]
            check(fits and any(shown["pcrs"][0]), f"{name} is of an image that the charter does not allow")
            check(shown["nonce"] == self.manifest_hash, f"{name} was made for something else")
            age = abs(shown["timestamp"] - at)
            check(age <= self.charter["attestation"]["max_age_s"] * 1000, f"{name} was {age} ms old")
            keys = shown["user_data"]
            tag = b"custody-enclave-keys-v1"
            check(keys.startswith(tag) and len(keys) == len(tag) + 64, f"{name} names no keys of an enclave")
            self.enclaves[node] = keys[len(tag) : len(tag) + 32], keys[len(tag) + 32 :]
        return f"{len(self.enclaves)} enclaves proved an allowed image for this ceremony"

    def check_people(self, folder):
        roles = {person["name"]: person["roles"] for person in self.charter["person"]}
        allowed = ((person["name"], key) for person in self.charter["person"] for key in person["keys"])
        signers = folder / "signers"
        signers.write_text("".join(f'{name} namespaces="{NAMESPACE}" {key}\n' for name, key in allowed))
        signed = {one(fields, 6) for fields, _ in self.of_kind(3)} | {one(fields, 4) for fields, _ in self.of_kind(9)}
        signed.add(one(self.events[0][1], 2))
        statements = [name for name in self.bundle.files if re.fullmatch(r"statements/.*\.sig", name)]
        check({self.bundle[name] for name in statements} == signed, "statements/ does not hold the log's signatures")
        approved, self.statements = {}, {}
        for name in sorted(statements):
            statement = self.bundle[name.removesuffix(".sig") + ".txt"]
            lines = dict(line.partition(": ")[::2] for line in statement.decode().splitlines())
            check(lines.get("ceremony") == self.ceremony, f"{name} is about another ceremony")
            check(lines.get("manifest") == self.manifest_hash.hex(), f"{name} is about another manifest")
            person = lines.get("person")
            role, step = lines.get("role"), lines.get("step", "").partition(" ")[0]
            check(role in roles.get(person, []), f"{name} is by {person}, who is no {role} of the charter")
            (folder / "sig").write_bytes(self.bundle[name])
            verifies = ("ssh-keygen", "-Y", "verify", "-f", signers, "-I", person, "-n", NAMESPACE, "-s", folder / "sig")
            run(f"{name} is not signed by {person}", *verifies, given=statement)
            self.statements[name] = lines
            if step == "approve":
                approved.setdefault(role, set()).add(person)
        kind = KINDS[one(self.manifest, 3, 0)]
        for role, count in self.charter["quorum"].get(kind, {}).items():
            check(len(approved.get(role, ())) >= count, f"fewer than {count} people approved as {role}")
        dissent = [lines["person"] for lines in self.statements.values() if "disagree" in lines.get("verdict", "")]
        also = f"; DISAGREES: {', '.join(dissent)}" if dissent else ""
        return f"{len(statements)} statements are signed by people in their roles, with the quorum's approvals{also}"

    def signed_by_enclave(self, node, signed, signature, words):
        check(node in self.enclaves, f"{words} of node {node}, whose enclave did not attest")
        check(ed25519(self.enclaves[node][0], signed, signature), f"{words} is not signed by the enclave of node {node}")

    def check_generation(self):
        roster = packed(self.manifest, 15)
        prepared, records = {}, set()
        for fields, _ in self.of_kind(4):
            node, record, blob = one(fields, 1, 0), one(fields, 2), one(fields, 3)
            digest = of_parts("custody/generation-record/v1", record)
            signed = of_parts("custody/prepared/v1", digest, bytes([node]), blob)
            self.signed_by_enclave(node, signed, one(fields, 4), "a generation record")
            prepared[node] = digest
            records.add(record)
        check(len(records) == 1 and sorted(prepared) == sorted(roster), "not every enclave signed one generation record")
        record = message(records.pop())
        check(one(record, 4) == self.manifest_hash, "the generation record is of another manifest")
        parts = [bytes([node]) + b"".join(keys) for node, keys in sorted(self.enclaves.items())]
        enclaves = of_parts("custody/enclaves/v1", *parts)
        check(one(record, 13) == enclaves, "the generation record is of other enclaves")
        self.key, self.digest = point(one(record, 8)), prepared[roster[0]]
        for name, lines in self.statements.items():
            check(lines.get("enclaves", enclaves.hex()) == enclaves.hex(), f"{name} is about other enclaves")
            check(lines.get("record", self.digest.hex()) == self.digest.hex(), f"{name} is about another record")
        shares = {one(share, 1, 0): point(one(share, 2)) for share in map(message, record[10])}
        threshold = one(record, 7, 0)
        base = dict(sorted(shares.items())[:threshold])
        check(threshold == self.charter["threshold"] and sorted(shares) == sorted(roster), "other shares than agreed")
        check(interpolate(base, 0) == self.key, "the public shares do not make the public key")
        for node, share in shares.items():
            check(interpolate(base, node) == share, f"the public share of node {node} is of another key")
        return f"all {len(roster)} enclaves signed one record: key {one(record, 8).hex()}, {threshold} of {len(shares)}"

    def check_tests(self):
        groups = {}
        for fields, _ in self.of_kind(6):
            node, subset, attempt = one(fields, 1, 0), bytes(packed(fields, 2)), one(fields, 3, 0)
            session, r, s, recovery = one(fields, 4), one(fields, 5), one(fields, 6), one(fields, 7, 0)
            attempt_bytes, number = attempt.to_bytes(4, "big"), one(fields, 9, 0).to_bytes(4, "big")
            parts = (self.manifest_hash, bytes([node]), subset, attempt_bytes, number, session, r, s, bytes([recovery]))
            signed = of_parts("custody/test-signed/v2", *parts)
            self.signed_by_enclave(node, signed, one(fields, 8), "a test signature")
            digest = of_parts("custody/test-signature/v1", self.manifest_hash, self.digest, subset, attempt_bytes)
            check(ecdsa(self.key, digest, r, s), f"the test signature of {list(subset)} does not hold under the key")
            groups.setdefault(subset, set()).add(node)
        complete = [subset for subset, said in groups.items() if said == set(subset)]
        check(complete, "no group signed a test")
        return f"{len(complete)} groups signed a test with the key"


def verify(options, folder):
    bundle = Bundle(options.bundle)
    yield bundle.check_sums()
    charter = (options.charter and options.charter.read_bytes()) or bundle["charter.toml"]
    root = (options.root and options.root.read_bytes()) or bundle["root.pem"]
    check(charter == bundle["charter.toml"], "charter.toml is not the charter that was given")
    check(not any(name.startswith("amendments/") for name in bundle.files), "amended charters are not followed here")
    rules = tomllib.loads(charter.decode())
    der = base64.b64decode("".join(root.decode().split("-----")[2].split()))
    check(hashlib.sha256(der).hexdigest() == rules["attestation"]["root_sha256"], "root.pem is not the charter's root")
    record = Record(bundle, rules, hashlib.sha256(charter).digest(), root)
    yield record.check_chain()
    if "heads.binpb" in bundle.files:
        yield record.check_heads()
    yield record.check_manifest()
    yield record.check_enclaves(folder)
    yield record.check_people(folder)
    if one(record.manifest, 3, 0) == 1 and record.of_kind(4):
        yield record.check_generation()
        yield record.check_tests()
    decides = {"SHA256SUMS", "charter.toml", "root.pem", "script.toml", "log.binpb", "heads.binpb"}
    others = sorted(name for name in bundle.files if name not in decides and not name.startswith("statements/"))
    yield f"NOT CHECKED, for no verdict rests on them: {', '.join(others)}; nor whether the script was completed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=pathlib.Path)
    parser.add_argument("--charter", type=pathlib.Path, help="the charter as you have it from elsewhere")
    parser.add_argument("--root", type=pathlib.Path, help="the attestation root as you have it from elsewhere")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for line in verify(options, pathlib.Path(folder)):
                print(line if line.startswith("NOT") else f"ok  {line}")
    except Refused as refused:
        sys.exit(f"REFUSED: {refused}")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        sys.exit(f"REFUSED: the bundle cannot be read: {error!r}")


if __name__ == "__main__":
    main()
