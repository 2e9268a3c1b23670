#!/usr/bin/env python3
"""Reads a Holdfast repository without Holdfast.

Written from docs/format.md, docs/format-rows.md and docs/format-files.md alone, as proof that those pages
are enough, and as a last resort for whoever has backups and no Holdfast. It reads a repository in a
directory, with tiers in directories; it never writes to it.

    read_holdfast.py REPOSITORY list
    read_holdfast.py REPOSITORY artifacts BACKUP
    read_holdfast.py REPOSITORY restore BACKUP [NAME...] --output DIRECTORY [--rows]
    read_holdfast.py REPOSITORY files BACKUP --output DIRECTORY

BACKUP is an id, the unique beginning of one, or "latest". restore writes every artifact (or those with
the names, or below the directories, that are given) into a file of its name; with --rows it also writes
the rows of tables as TSV, as LOAD DATA reads it. files makes the data directory of a physical, snapshot or
clone backup, in a directory that is missing or empty: every file in its place, and over it what a clone or
a tool wrote later. An encrypted repository needs --passphrase-file or --key-file.

Needs Python 3.9 and the package zstandard; lz4 for frames that are compressed so; cryptography, and
argon2-cffi for passphrases, where the repository is encrypted. On Debian: python3-zstandard python3-lz4
python3-cryptography python3-argon2.
"""

import argparse
import bz2
import hashlib
import hmac
import json
import lzma
import os
import re
import struct
import sys
import zlib
from pathlib import Path
from urllib.parse import unquote


class Damaged(Exception):
    """What was read is not what was written."""


def need(condition, problem):
    if not condition:
        raise Damaged(problem)


# Section 11: keys


def hkdf(secret, salt, info):
    """HKDF-SHA256 with an output of 32 bytes."""
    extracted = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def decrypt(cipher, key, nonce, ciphertext_and_tag, associated):
    """The plaintext, or None where the key is another one or a bit is."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import aead

    algorithm = {1: aead.AESGCM, 2: aead.ChaCha20Poly1305}[cipher]
    try:
        return algorithm(key).decrypt(nonce, ciphertext_and_tag, associated)
    except InvalidTag:
        return None


CIPHERS = {"aes-256-gcm": 1, "chacha20-poly1305": 2}


def checked_json(data, name):
    """A JSON object with a check in its last line but one (section 2), and the text before that."""
    head, found, tail = data.rpartition(b'  "check": "')
    digest = hashlib.sha256(head).hexdigest().encode()
    need(found and tail == digest + b'"\n}\n', f"{name} does not match its check")
    value = json.loads(data)
    need(value["format"] == 1, f"{name} has format {value['format']}")
    return value, head


def wrapping_key(kdf, kind, secret):
    salt = bytes.fromhex(kdf["salt"])
    if (kind, kdf["name"]) == ("key-file", "hkdf-sha256"):
        return hkdf(secret, salt, b"holdfast key file")
    need((kind, kdf["name"]) == ("passphrase", "argon2id"), f"a slot of kind {kind}")
    memory, iterations, lanes = kdf["memory_kib"], kdf["iterations"], kdf["lanes"]
    need(
        lanes <= 16 and 8 * lanes <= memory <= 262144 and memory * iterations <= 2097152,
        "a slot that asks for too much",
    )
    from argon2.low_level import Type, hash_secret_raw

    return hash_secret_raw(secret, salt, iterations, memory, lanes, 32, Type.ID, 19)


def master_key(root, config, kind, secret):
    """Tries every slot of the kind."""
    repository, cipher = config["repository"], config["encryption"]["cipher"]
    paths = sorted(path for path in root.glob("keys/*") if re.fullmatch("[0-9a-f]{8}", path.name))
    need(len(paths) <= 64, "there are more key slots than any repository has")
    for path in paths:
        try:
            slot, head = checked_json(path.read_bytes(), f"keys/{path.name}")
            if slot["repository"] != repository or slot["kind"] != kind:
                continue
            need(slot["slot"] == path.name, f"keys/{path.name} has another name inside")
            key = wrapping_key(slot["kdf"], kind, secret)
        except (Damaged, ValueError, KeyError) as problem:
            print(f"keys/{path.name} is left out: {problem}", file=sys.stderr)
            continue
        associated = head[: head.rindex(b'  "wrapped": "')]
        nonce, wrapped = bytes.fromhex(slot["nonce"]), bytes.fromhex(slot["wrapped"])
        master = decrypt(1, key, nonce, wrapped, associated)
        if master is None:
            continue
        check = hkdf(master, b"", f"holdfast key check {repository} {cipher}".encode())
        need(check.hex() == config["encryption"]["key_check"], "the key is not that of holdfast.json")
        return master
    sys.exit("wrong passphrase or key file, or no key slot is left")


# Section 3: framed objects

MAX_RAW = 16 << 20


class Frame:
    """A frame, checked and decrypted."""

    def __init__(self, repository, path, data, offset):
        place = repository.place(path)
        at = f"{path}, byte {offset}"
        header = bytes(data[:80])
        need(len(header) == 80 and header[:4] == b"HFF1", f"{at}: no frame begins here")
        need(zlib.crc32(header[:76]) == struct.unpack_from("<I", header, 76)[0], f"{at}: damaged header")
        version, self.kind, self.codec, cipher, self.flags = struct.unpack_from("<BBBBH", header, 4)
        self.raw_length, stored, self.list_length = struct.unpack_from("<III", header, 12)
        (self.base_length,) = struct.unpack_from("<I", header, 48)
        delta = self.flags == 1
        known = version == 1 and 1 <= self.kind <= 7 and self.codec <= 5 and cipher <= 2 and self.flags <= 1
        zeros = header[10:12] + header[40:48] + header[52:60]
        zeros += (b"" if cipher else header[24:40]) + (b"" if delta else header[20:24] + header[48:52])
        need(known and not any(zeros), f"{at}: needs a newer reader")
        right = stored < self.raw_length if self.codec else stored == self.raw_length
        if delta:
            right = right and (self.kind, self.codec) == (1, 1)
            right = right and self.list_length < stored and 1 <= self.base_length <= MAX_RAW
        most = {3: 4 * MAX_RAW, 5: 16}.get(self.kind, MAX_RAW)
        need(right and self.raw_length <= most, f"{at}: lengths that no writer gives a frame")
        self.length = 80 + stored
        payload = bytes(data[80 : self.length])
        need(len(payload) == stored, f"{at}: the frame is cut off")
        self.check = header[60:76]
        bound = place + struct.pack("<Q", offset) + header[:60]
        need(bool(cipher) == bool(repository.master), f"{at}: a frame that is encrypted in no way of this repository")
        if cipher:
            key = hkdf(repository.master, header[24:40], b"holdfast frame" + place)
            nonce = bytes(4) + struct.pack("<Q", offset)
            payload = decrypt(cipher, key, nonce, payload + self.check, bound)
            need(payload is not None, f"{at}: does not match its tag")
        else:
            need(hashlib.sha256(bound + payload).digest()[:16] == self.check, f"{at}: does not match its check")
        self.header, self.payload, self.at = header, payload, at

    def content(self):
        """What a whole frame holds."""
        need(self.flags == 0, f"{self.at}: a frame with flags {self.flags}")
        return decompress(self.codec, self.payload, self.raw_length, self.at)


def decompress(codec, payload, length, at, prefix=b""):
    if codec == 0:
        content = payload
    elif codec == 1:
        import zstandard

        dictionary = None
        if prefix:
            dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        reader = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 31)
        content = reader.decompress(payload, max_output_size=length)
    elif codec == 2:
        import lz4.block

        content = lz4.block.decompress(payload, uncompressed_size=length)
    elif codec in (3, 4, 5):
        reader = {3: lambda: zlib.decompressobj(31), 4: lambda: xz(length), 5: bz2.BZ2Decompressor}[codec]()
        content = reader.decompress(payload, length + 1)
        need(reader.eof and not reader.unused_data, f"{at}: more or less than one compressed stream")
    else:
        raise Damaged(f"{at}: codec {codec} needs a newer reader")
    need(len(content) == length, f"{at}: {len(content)} bytes instead of {length}")
    return content


def xz(length):
    """With a dictionary no longer than the content, but for 4 KiB, and 1 MiB for tables."""
    dictionary = max(4096, 1 << max(length - 1, 0).bit_length())
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=dictionary + (1 << 20))


BACKUP_ID = r"\d{8}T\d{6}Z-(?:full|incr|diff)-[0-9a-f]{6}"
OBJECTS = {"pack": 1, "index": 2, "manifest": 3}


class Repository:
    def __init__(self, root, kind=None, secret=None):
        self.root = Path(root)
        config, _ = checked_json((self.root / "holdfast.json").read_bytes(), "holdfast.json")
        unknown = set(config["requires"]) - {"encryption"}
        need(not unknown, f"the repository needs {unknown}")
        agree = bool(config["requires"]) == bool(config["encryption"])
        need(agree, "the repository is encrypted in a way that needs a newer reader")
        self.id, self.master = config["repository"], None
        if config["encryption"]:
            need(config["encryption"]["cipher"] in CIPHERS, "the repository has another cipher")
            if kind is None:
                sys.exit("the repository is encrypted: give --passphrase-file or --key-file")
            self.master = master_key(self.root, config, kind, secret)
        self.frames = {}
        self.lower = None

    def tiers(self):
        """The directories of the tiers (section 13)."""
        numbers = [int(path.name) for path in self.root.glob("tiers/*") if re.fullmatch("0|[1-9][0-9]*", path.name)]
        if not numbers:
            return
        policy = json.loads((self.root / f"tiers/{max(numbers)}").read_bytes())
        need(policy["format"] == 1, "the tiers need a newer reader")
        for tier in policy["tiers"]:
            url = tier["url"]
            if url.startswith("file://"):
                url = unquote(url[len("file://") :])
            elif url.startswith("nfs:///"):
                url = url[len("nfs://") :]
            if not url.startswith("/"):
                print(f"the {tier['name']} tier is no directory and is left out: {url}", file=sys.stderr)
                continue
            mark = json.loads((Path(url) / "tier.json").read_bytes())
            right = (mark["repository"], mark["id"]) == (self.id, tier["id"])
            need(right, f"{url} is not the {tier['name']} tier of this repository")
            yield Path(url)

    def file(self, path):
        """Where an object is: packs may have moved to a tier."""
        if (self.root / path).exists():
            return self.root / path
        if path.rsplit("/", 1)[1].startswith("pack-"):
            if self.lower is None:
                self.lower = list(self.tiers())
            for store in self.lower:
                if (store / path).exists():
                    return store / path
        raise Damaged(f"{path} is missing")

    def place(self, path):
        name = path.encode("ascii")
        return b"HOLDFAST" + self.id.encode("ascii") + struct.pack("<H", len(name)) + name

    def object(self, path, digest=None):
        """The bytes of an object, its header checked."""
        data = self.file(path).read_bytes()
        if digest:
            need(len(data) == digest["bytes"], f"{path} has another length")
            need(hashlib.sha256(data).hexdigest() == digest["sha256"], f"{path} has another SHA-256")
        kind = OBJECTS[path.rsplit("/", 1)[1].split("-")[0]]
        need(data[:12] == b"HOLDFAST" + bytes([kind, 1, 0, 0]), f"{path} is no such object")
        crc = zlib.crc32(self.place(path) + data[:12])
        need(crc == struct.unpack_from("<I", data, 12)[0], f"{path} belongs to another place")
        return data

    def all_frames(self, path, digest=None):
        return self.frames_from(path, self.object(path, digest), 16)

    def frames_from(self, path, data, offset):
        while offset < len(data):
            frame = Frame(self, path, memoryview(data)[offset:], offset)
            yield frame
            offset += frame.length

    def catalog_of_pack(self, path):
        """The frames at the end of a pack, where its last 96 bytes say that the catalog begins (section 4)."""
        data = self.object(path)
        end = Frame(self, path, data[-96:], len(data) - 96)
        need(end.kind == 5, f"{path} is cut off")
        (offset,) = struct.unpack_from("<Q", end.content())
        return self.frames_from(path, data, offset)

    def frame(self, path, offset, length):
        """One frame of a pack. The last few are kept: extents that follow each other often share one."""
        key = (path, offset)
        if key not in self.frames:
            with open(self.file(path), "rb") as pack:
                pack.seek(offset)
                data = pack.read(length)
            frame = Frame(self, path, data, offset)
            need(frame.length == length and frame.kind == 1, f"{frame.at}: another frame than was listed")
            while len(self.frames) >= 8:
                del self.frames[next(iter(self.frames))]
            content = self.delta(frame, path) if frame.flags == 1 else frame.content()
            self.frames[key] = (frame, content)
        return self.frames[key]

    def delta(self, frame, path):
        """What a delta frame holds (section 3.5)."""
        listed, compressed = frame.payload[: frame.list_length], frame.payload[frame.list_length :]
        count = listed[0]
        backups = [listed[1 + 28 * n : 29 + 28 * n].decode("ascii") for n in range(count)]
        at = 1 + 28 * count
        (parts,) = struct.unpack_from("<H", listed, at)
        need(len(listed) == at + 2 + 33 * parts, f"{frame.at}: the list of a delta has another length")
        directory = path.rsplit("/", 2)[0]
        base = b""
        for n in range(parts):
            part = struct.unpack_from("<BIQIII8s", listed, at + 2 + 33 * n)
            which, pack, offset, length, raw_offset, size, check = part
            need(re.fullmatch(BACKUP_ID, backups[which]), f"{frame.at}: no id of a backup")
            whole, content = self.frame(f"{directory}/{backups[which]}/pack-{pack}", offset, length)
            need(whole.check[:8] == check, f"{whole.at}: another frame than the base of a delta")
            need(whole.flags == 0, f"{whole.at}: a delta against a delta")
            base += content[raw_offset : raw_offset + size]
        need(len(base) == frame.base_length, f"{frame.at}: the base has another length")
        return decompress(frame.codec, compressed, frame.raw_length, frame.at, base)

    def backups(self):
        """Every backup, by id: one with a manifest that is no tombstone. Instead of one that cannot be
        read, why not."""
        found = []
        for directory in self.root.glob("clusters/*/backups/*"):
            if not re.fullmatch(BACKUP_ID, directory.name):
                continue
            there = {name for name in ("index", "active", "retired") if (directory / name).exists()}
            try:
                if (directory / "manifest").exists():
                    backup = Backup(self, directory)
                elif there == {"index"}:
                    raise Damaged("the manifest is lost")
                else:
                    continue
            except (Damaged, OSError, ValueError, KeyError) as problem:
                backup = Damaged(f"{directory.name} cannot be read: {problem}")
            if isinstance(backup, Damaged) or not backup.given_up:
                found.append((directory.name, backup))
        return sorted(found, key=lambda backup: backup[0])

    def backup(self, name):
        found = self.backups()
        if name != "latest":
            found = [(id, backup) for id, backup in found if id.startswith(name)]
            if len(found) > 1:
                sys.exit(f"{name} is the beginning of more than one backup")
        if not found:
            sys.exit("there is no such backup")
        _, backup = found[-1]
        if isinstance(backup, Damaged):
            raise backup
        return backup


class Backup:
    def __init__(self, repository, directory):
        self.repository = repository
        self.cluster, self.id = directory.parent.parent.name, directory.name
        # Section 8.
        frames = list(repository.all_frames(self.path("manifest")))
        need(len(frames) == 1 and frames[0].kind == 3, f"{self.id}: no manifest")
        self.manifest = json.loads(frames[0].content())
        named = [self.manifest[key] for key in ("format", "backup", "cluster")]
        need(named == [1, self.id, self.cluster], f"{self.id}: the manifest of another backup")
        self.given_up = "given_up" in self.manifest

    def path(self, name, backup=None):
        return f"clusters/{self.cluster}/backups/{backup or self.id}/{name}"

    def frames_of_index(self):
        """The frames of the index; else of the newest that was rebuilt and is whole; else of all packs
        (sections 6 and 7)."""
        path = self.path("index")
        try:
            return self.index(path, self.manifest["index"])
        except (Damaged, OSError) as problem:
            print(f"the index cannot be read: {problem}", file=sys.stderr)
        directory = (self.repository.root / path).parent
        numbers = [int(file.name[6:]) for file in directory.glob("index-*") if file.name[6:].isdecimal()]
        for number in sorted(numbers, reverse=True):
            try:
                frames = self.index(self.path(f"index-{number}"))
                print(f"index-{number} stands in for it", file=sys.stderr)
                return frames
            except (Damaged, OSError) as problem:
                print(f"index-{number} cannot be read: {problem}", file=sys.stderr)
        print("the index is rebuilt from the packs", file=sys.stderr)
        packs = [self.path(pack["name"]) for pack in self.manifest["packs"]]
        return [frame for path in packs for frame in self.repository.catalog_of_pack(path)]

    def index(self, path, digest=None):
        frames = list(self.repository.all_frames(path, digest))
        need(frames and frames[-1].kind == 5, f"{path} is cut off")
        (count,) = struct.unpack_from("<I", frames[-1].content(), 8)
        need(count == len(frames) - 1, f"{path} lacks frames")
        return frames

    def entries(self):
        """The lines of the catalog."""
        frames = self.frames_of_index()
        for frame in frames:
            if frame.kind == 2:
                yield from map(json.loads, frame.content().splitlines())

    def artifacts(self):
        """The finished artifacts by their names."""
        groups = {}
        for entry in self.entries():
            groups.setdefault(entry["id"], []).append(entry)
        found = {}
        for entries in groups.values():
            entries.sort(key=lambda entry: entry["seq"])
            if "end" not in entries[-1]:
                continue
            whole = [entry["seq"] for entry in entries] == list(range(len(entries)))
            name = entries[0]["name"]
            need(whole and name not in found, f"{name}: entries are missing, or there twice")
            need(PLAIN_NAME.fullmatch(name), f"{name!r} is no name of an artifact")
            found[name] = Artifact(self, name, entries)
        need(len(found) == self.manifest["totals"]["artifacts"], "the list of artifacts is not complete")
        return dict(sorted(found.items()))


# Section 5. No component is all dots, so no name leads out of a directory.
COMPONENT = r"(?!\.+(?:/|$))(?:[A-Za-z0-9_.~#-]|%[0-9A-F]{2})+"
PLAIN_NAME = re.compile(f"{COMPONENT}(?:/{COMPONENT})*")


class Artifact:
    def __init__(self, backup, name, entries):
        self.backup, self.name, self.entries = backup, name, entries
        self.end = entries[-1]["end"]

    def pieces(self):
        """Its bytes, checked as a whole at the end (section 15)."""
        repository = self.backup.repository
        digest, length = hashlib.sha256(), 0
        for entry in self.entries:
            sources = [None, *entry.get("sources", [])]
            need(all(re.fullmatch(BACKUP_ID, id) for id in sources[1:]), f"{self.name}: no ids of backups")
            for source, pack, offset, frame_length, raw_offset, count, check in entry["extents"]:
                path = self.backup.path(f"pack-{pack}", sources[source])
                frame, content = repository.frame(path, offset, frame_length)
                need(frame.check[:8].hex() == check, f"{frame.at}: another frame than was listed")
                piece = content[raw_offset : raw_offset + count]
                need(len(piece) == count, f"{frame.at}: the frame is too short")
                digest.update(piece)
                length += count
                yield piece
        right = (length, digest.hexdigest()) == (self.end["bytes"], self.end["sha256"])
        need(right, f"{self.name} has another length or SHA-256")


# docs/format-rows.md

MASK = (1 << 64) - 1


def signed(value, bits=64):
    return value - (1 << bits) if value >> (bits - 1) else value


class Section:
    """A part of a block, read from its beginning."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        piece = self.data[self.at : self.at + count]
        need(len(piece) == count, "a section of a row block is too short")
        self.at += count
        return piece

    def integers(self, count):
        """An integer section; the integers are unsigned, modulo 2**64."""
        mode, planes, base, step, slope = struct.unpack("<BBQQQ", self.take(26))
        need(mode <= 1 and planes <= 8, "an integer section that needs a newer reader")
        residues = [0] * count
        for k in range(planes):
            for i, byte in enumerate(self.take(count)):
                residues[i] |= byte << (8 * k)
        if mode == 0:
            return [(base + step * e) & MASK for e in residues]
        values = []
        for i, e in enumerate(residues):
            values.append(base if i == 0 else (values[-1] + step * (slope + e)) & MASK)
        return values

    def strings(self, count):
        lengths = self.integers(count)
        return [self.take(length) for length in lengths]

    def end(self):
        need(self.at == len(self.data), "a section of a row block is too long")


def date_text(packed):
    year, month, day = packed // 32 // 13, packed // 32 % 13, packed % 32
    return f"{year:04}-{month:02}-{day:02}"


def clock_text(hours, seconds, micro):
    text = f"{hours:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{micro:06}" if micro else "")


def datetime_text(packed):
    date, micro = divmod(packed, 86_400_000_000)
    seconds, micro = divmod(micro, 1_000_000)
    return f"{date_text(date)} {clock_text(seconds // 3600, seconds, micro)}"


def time_text(packed):
    value = signed(packed)
    seconds, micro = divmod(abs(value), 1_000_000)
    return ("-" if value < 0 else "") + clock_text(seconds // 3600, seconds, micro)


def date_bytes(value):
    """The text of a date or datetime from the bytes of a row packet."""
    parts = value + bytes(11 - len(value))
    year, month, day, hour, minute, second, micro = struct.unpack("<HBBBBBI", parts)
    return year, month, day, hour, minute, second, micro


def temporal_text(kind, value):
    if kind == 13:
        sign, days, hour, minute, second, micro = struct.unpack("<BIBBBI", value + bytes(12 - len(value)))
        text = clock_text(days * 24 + hour, minute * 60 + second, micro)
        return ("-" if sign else "") + text
    year, month, day, hour, minute, second, micro = date_bytes(value)
    text = f"{year:04}-{month:02}-{day:02}"
    if kind == 12:
        text += " " + clock_text(hour, minute * 60 + second, micro)
    return text


def float_text(bits):
    value = struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]
    for digits in range(6, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            break
    return text


def double_text(bits):
    return repr(struct.unpack("<d", struct.pack("<Q", bits))[0])


def integer_text(kind, value):
    bits = {1: 8, 2: 8, 3: 16, 4: 16, 5: 32, 6: 32, 7: 64, 8: 64, 14: 16}[kind]
    value &= (1 << bits) - 1
    return str(signed(value, bits) if kind in (1, 3, 5, 7) else value)


def decimal_text(value, scale):
    value = signed(value)
    digits = str(abs(value)).rjust(scale + 1, "0")
    if scale:
        digits = f"{digits[:-scale]}.{digits[-scale:]}"
    return ("-" if value < 0 else "") + digits


def column(kind, encoding, flags, data, rows):
    """The values of a column as bytes of text, or None for NULL."""
    section = Section(data)
    present = [True] * rows
    need(flags <= 1 and 1 <= kind <= 15, "a column that needs a newer reader")
    if flags:
        bitmap = section.take((rows + 7) // 8)
        present = [not bitmap[i // 8] >> (i % 8) & 1 for i in range(rows)]
    count = sum(present)
    fits = {0: range(1, 15), 1: (11, 12, 13, 15), 2: (15,), 3: (15,)}
    need(kind in fits.get(encoding, ()), "a column whose encoding does not fit its kind")
    if encoding == 0:
        text = {9: float_text, 10: double_text, 11: date_text, 12: datetime_text, 13: time_text}.get(kind)
        text = text or (lambda value: integer_text(kind, value))
        values = [text(value).encode() for value in section.integers(count)]
    elif encoding == 1:
        values = section.strings(count)
        if kind != 15:
            values = [temporal_text(kind, value).encode() for value in values]
    elif encoding == 2:
        scale = section.take(1)[0]
        values = [decimal_text(value, scale).encode() for value in section.integers(count)]
    else:
        entries = section.strings(struct.unpack("<H", section.take(2))[0])
        values = [entries[number] for number in section.integers(count)]
    section.end()
    values = iter(values)
    return [next(values) if there else None for there in present]


ESCAPES = {0: b"\\0", 9: b"\\t", 10: b"\\n", 92: b"\\\\"}


def field(value):
    """A field as LOAD DATA reads it."""
    if value is None:
        return b"\\N"
    if not any(byte in value for byte in ESCAPES):
        return value
    return b"".join(ESCAPES.get(byte, bytes([byte])) for byte in value)


def tsv(data):
    """The rows of a sequence of row blocks as lines of TSV."""
    at = 0
    while at < len(data):
        header = data[at : at + 48]
        need(header[:4] == b"HFRB" and header[4] == 1, "no row block begins here")
        columns, rows, body = struct.unpack_from("<HIQ", header, 6)
        need(zlib.crc32(header[:44]) == struct.unpack_from("<I", header, 44)[0], "a damaged row block")
        directory, sections = at + 48, at + 48 + 12 * columns
        at += 48 + body
        values = []
        for n in range(columns):
            kind, encoding, flags, _, length = struct.unpack_from("<BBBBQ", data, directory + 12 * n)
            values.append(column(kind, encoding, flags, data[sections : sections + length], rows))
            sections += length
        need(sections == at, "the sections of a row block do not fill it")
        for row in zip(*values):
            yield b"\t".join(map(field, row)) + b"\n"


# docs/format-files.md


def component(text):
    """A component of the name of an artifact (section 5)."""
    encoded = re.sub(b"[^A-Za-z0-9_.~#-]", lambda byte: b"%%%02X" % ord(byte[0]), text.encode())
    return encoded.decode() if text.strip(".") else encoded.decode().replace(".", "%2E")


def changes(pieces):
    """The pieces of an artifact of changes: offsets in the file, and bytes."""
    held, end = bytearray(), 0
    for piece in pieces:
        held += piece
        while len(held) >= 12:
            offset, length = struct.unpack_from("<QI", held)
            need(offset >= end and length <= 16 << 20, "pieces of changes overlap, or one is too long")
            if len(held) < 12 + length:
                break
            yield offset, bytes(held[12 : 12 + length])
            del held[: 12 + length]
            end = offset + length
    need(not held, "an artifact of changes is cut short")


def data_directory(backup, output):
    artifacts = backup.artifacts()

    def pieces(*path):
        name = "/".join(map(component, path))
        need(name in artifacts, f"{name} is missing")
        return artifacts[name].pieces()

    lines = b"".join(pieces("physical", "catalog")).split(b"\n")
    header, *entries, last = map(json.loads, lines[:-1])
    need(header["files_format"] == 1, "the catalog of the files needs a newer reader")
    need(last.get("entries") == len(entries) and not lines[-1], "the catalog of the files is cut off")
    output.mkdir(exist_ok=True)
    need(not any(output.iterdir()), f"{output} is not empty")
    size = 0
    for entry in entries:
        parts = entry["path"].split("/")
        inside = all(part not in ("", ".", "..") and "\0" not in part for part in parts)
        need(inside, f"{entry['path']!r} leads out of the data directory")
        path = output.joinpath(*parts)
        if entry["kind"] == "directory":
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = (entry.get("stored_as") or entry["path"]).split("/")
        with open(path, "xb") as file:
            for piece in pieces("files", *stored):
                file.write(piece)
            length = file.tell()
            if entry.get("changes"):
                need(length <= entry["bytes"], f"{entry['path']} is longer than the catalog says")
                for offset, piece in changes(pieces("changes", *stored)):
                    file.seek(offset)
                    file.write(piece)
                length = file.truncate(entry["bytes"])
            need(length == entry["bytes"], f"{entry['path']} has another length than the catalog says")
        size += length
    for entry in reversed(entries):
        os.chmod(output / entry["path"], entry["mode"])
    print(f"{len(entries)} directories and files, {size} bytes, in the state `{header['state']}`")
    print("give them to the user of the server before it starts on them")


# The command line


def restore(backup, output, names, rows):
    count = size = 0
    for name, artifact in backup.artifacts().items():
        if names and not any(name == wanted or name.startswith(f"{wanted}/") for wanted in names):
            continue
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            for piece in artifact.pieces():
                file.write(piece)
        if rows and path.read_bytes()[:4] == b"HFRB":
            with open(f"{path}.tsv", "xb") as file:
                file.writelines(tsv(path.read_bytes()))
        count, size = count + 1, size + artifact.end["bytes"]
    print(f"{count} artifacts, {size} bytes; each has the SHA-256 that it was backed up with")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("--passphrase-file", type=Path)
    parser.add_argument("--key-file", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    command = commands.add_parser("artifacts")
    command.add_argument("backup")
    command = commands.add_parser("restore")
    command.add_argument("backup")
    command.add_argument("names", nargs="*")
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--rows", action="store_true")
    command = commands.add_parser("files")
    command.add_argument("backup")
    command.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    kind = secret = None
    if arguments.key_file:
        kind, secret = "key-file", arguments.key_file.read_bytes()
    elif arguments.passphrase_file:
        line = arguments.passphrase_file.read_bytes().split(b"\n")[0]
        kind, secret = "passphrase", line[:-1] if line.endswith(b"\r") else line
    try:
        repository = Repository(arguments.repository, kind, secret)
        if arguments.command == "list":
            problems = []
            for _, backup in repository.backups():
                if isinstance(backup, Damaged):
                    problems.append(str(backup))
                    continue
                about = backup.manifest
                print(backup.id, backup.cluster, about["strategy"], about["finished_at"], sep="\t")
            if problems:
                raise Damaged("; ".join(problems))
        elif arguments.command == "artifacts":
            for name, artifact in repository.backup(arguments.backup).artifacts().items():
                print(artifact.end["sha256"], artifact.end["bytes"], name, sep="\t")
        elif arguments.command == "files":
            data_directory(repository.backup(arguments.backup), arguments.output)
        else:
            restore(repository.backup(arguments.backup), arguments.output, arguments.names, arguments.rows)
    except (Damaged, OSError) as problem:
        sys.exit(f"read_holdfast: {problem}")


if __name__ == "__main__":
    main()
