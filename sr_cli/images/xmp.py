"""XMP packets as trees: what describes pixels follows the image, what points at lost attachments goes.

Which properties these are, and what is done with each, is listed in docs/photos.md. Sources: Adobe, "XMP
Specification" parts 1 (data model, RDF/XML), 2 (properties) and 3 (extended XMP in JPEG), 2012 to 2020; the
specifications that are named at each rule in `xmp_rules`.
"""

from __future__ import annotations

import copy
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field

from sr_cli.images.geometry import Move
from sr_cli.images.xmp_names import HAS_EXTENDED, HISTORY, LANG, NAMESPACES, RDF, name
from sr_cli.images.xmp_rules import Tree, apply

_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '\n<?xpacket end="w"?>'
_MAX_ELEMENTS, _MAX_DEPTH = 200_000, 64
_SRGB = {"exif:ColorSpace": "1", "photoshop:ColorMode": "3", "photoshop:ICCProfile": "sRGB IEC61966-2.1"}
UNREADABLE = "XMP that is not well-formed XML"  #: Note about a packet that was dropped.


@dataclass(frozen=True)
class Edited:
    """A packet after an edit."""

    packet: bytes | None  #: None if nothing is left, or if it could not be read.
    lost: tuple[str, ...] = ()  #: Items that the packet describes and the output lacks, in words for `losses`.


class _Builder(ET.TreeBuilder):
    """Builds the tree, notes the prefix of each namespace, and refuses what makes small files large.

    Document types are refused, because only they can declare entities (XMP, part 1, 7.3.2 has none).
    """

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: dict[str, str] = {}
        self._elements = self._depth = 0

    def start_ns(self, prefix: str, uri: str) -> None:
        self.prefixes.setdefault(uri, prefix)

    def doctype(self, *_: object) -> None:
        raise ValueError("a document type in XMP")

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:
        self._elements += 1 + len(attrs)
        self._depth += 1
        if self._elements > _MAX_ELEMENTS or self._depth > _MAX_DEPTH:
            raise ValueError("too much XMP")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


@dataclass
class Packet:
    """A parsed packet."""

    root: ET.Element
    prefixes: dict[str, str] = field(default_factory=dict)  #: By namespace, as the file had them.

    @property
    def rdf(self) -> ET.Element:
        """The element that holds the descriptions. Raises ValueError if there is none."""
        found = next(self.root.iter(RDF + "RDF"), None)
        if found is None:
            raise ValueError("no RDF in XMP")
        return found

    def serialised(self) -> bytes:
        """Serialise the packet in UTF-8. The tree is used up."""
        _to_prefixes(self.root, self.prefixes)
        return (_BEGIN + ET.tostring(self.root, encoding="unicode") + _END).encode()


def parsed(packet: bytes) -> Packet:
    """Parse a packet in UTF-8 or UTF-16. Raises ValueError if that is no XMP."""
    if packet[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        packet = packet[max(0, packet.find(b"<")) :].rstrip(b"\0 \t\r\n")
    builder = _Builder()
    parser = ET.XMLParser(target=builder)
    try:
        parser.feed(packet)
        root = parser.close()
    except (ET.ParseError, LookupError, AssertionError) as error:
        raise ValueError(f"not well-formed: {error}") from error
    result = Packet(root, builder.prefixes)
    result.rdf  # noqa: B018  its absence is an error
    return result


def edited(packet: bytes, move: Move) -> Edited:
    """Edit the packet so that it is true for the moved image, without properties that promise what is not carried.

    A packet in which nothing changes stays as it is, byte for byte.
    """
    try:
        tree = parsed(packet)
        changed, lost = apply(tree.root, move)
    except ValueError:
        return Edited(None, (UNREADABLE,))
    return Edited(tree.serialised() if changed else packet, lost)


def promises(packet: bytes) -> tuple[str, ...]:
    """List what a packet says is appended to its file or hidden in the packet: "gain map", "video", ..."""
    return tuple(what for what in edited(packet, Move((1, 1), (1, 1))).lost if what != UNREADABLE)


def finished(packet: bytes | None, *, mime: str, history: str | None) -> bytes | None:
    """Finish the packet as an output carries it: `dc:format`, where it is given, names the output's format.

    history: what made the output, e.g. "srup 0.1.0"; it becomes the last event of xmpMM:History. A packet that
    cannot be read is left as it is.
    """
    if packet is None and history is None:
        return None
    try:
        tree = parsed(packet) if packet else _empty()
    except ValueError:
        return packet
    properties = Tree(tree.root)
    for node in tree.root.iter(RDF + "Description"):
        if properties.text(node, "dc:format") not in (None, "", mime):
            properties.set(node, "dc:format", mime)
    if history is not None:
        _add_event(tree.rdf, history)
    return tree.serialised() if properties.changed or history is not None else packet


def last_software(packet: bytes) -> str | None:
    """Return the software agent of the last event in xmpMM:History; None if there is none."""
    try:
        root = parsed(packet).root
    except ValueError:
        return None
    events = [event for history in root.iter(HISTORY) for event in history.iter(RDF + "li")]
    if not events:
        return None
    agents = [
        node.get(name("stEvt:softwareAgent")) or node.findtext(name("stEvt:softwareAgent"))
        for node in (events[-1], *events[-1])
    ]
    return next((agent for agent in agents if agent), None)


def as_srgb(packet: bytes) -> bytes:
    """Edit the packet of an image whose colours were converted to sRGB: it names no other colour space."""
    try:
        tree = parsed(packet)
    except ValueError:
        return packet
    properties = Tree(tree.root)
    for node in tree.root.iter():
        for short, value in _SRGB.items():
            properties.set(node, short, value)
    return tree.serialised() if properties.changed else packet


# Extended XMP: JPEG holds no more than 64 KB in one segment (part 3, 1.1.3.1)


def extended_guid(packet: bytes) -> str | None:
    """Return the name of the extension that a packet points at; None if it points at none, or cannot be read."""
    try:
        root = parsed(packet).root
    except ValueError:
        return None
    for node in root.iter():
        if node.tag == HAS_EXTENDED:
            return (node.text or "").strip()
        if HAS_EXTENDED in node.attrib:
            return node.attrib[HAS_EXTENDED].strip()
    return None


def joined(packet: bytes, extension: bytes | None) -> bytes:
    """Join a packet and the properties of its extension (None: lost), without a pointer to it. Raises ValueError."""
    tree = parsed(packet)
    _remove_pointers(tree.root)
    if extension is not None:
        more = parsed(extension)
        tree.rdf.extend(list(more.rdf))
        for uri, prefix in more.prefixes.items():
            tree.prefixes.setdefault(uri, prefix)
    return tree.serialised()


@dataclass(frozen=True)
class Split:
    """A packet in two parts."""

    main: bytes
    extension: bytes
    guid: str  #: The extension's name: its MD5, 32 hexadecimal digits.


def split(packet: bytes, limit: int) -> Split:
    """Move the largest properties into an extension until `limit` bytes hold the rest.

    Raises ValueError if that is impossible or the packet cannot be read.
    """
    tree = parsed(packet)
    _remove_pointers(tree.root)
    parts = sorted(_properties(tree.rdf), key=lambda part: (part.name == HISTORY, -part.size))
    about = next(iter(tree.rdf), ET.Element(RDF + "Description")).get(RDF + "about", "")
    moved = ET.Element(RDF + "Description", {RDF + "about": about})
    rest = sum(part.size for part in parts)
    for part in parts:
        part.move_to(moved)
        rest -= part.size
        if rest > limit:  # a lower bound of what would remain, cheaper than to write it
            continue
        outer = ET.Element("{adobe:ns:meta/}xmpmeta")
        ET.SubElement(outer, RDF + "RDF").append(copy.deepcopy(moved))
        _to_prefixes(outer, tree.prefixes)
        extension = ET.tostring(outer, encoding="utf-8", xml_declaration=False)
        guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
        main = Packet(copy.deepcopy(tree.root), dict(tree.prefixes))
        ET.SubElement(main.rdf, RDF + "Description", {RDF + "about": about, HAS_EXTENDED: guid})
        packet = main.serialised()
        if len(packet) <= limit:
            return Split(packet, extension, guid)
    raise ValueError("XMP cannot be split")


@dataclass(frozen=True)
class _Property:
    """A top-level property, as an attribute or an element of a description."""

    parent: ET.Element
    name: str
    element: ET.Element | None
    size: int

    def move_to(self, other: ET.Element) -> None:
        if self.element is not None:
            self.parent.remove(self.element)
            other.append(self.element)
        else:
            ET.SubElement(other, self.name).text = self.parent.attrib.pop(self.name)


def _properties(rdf: ET.Element) -> Iterator[_Property]:
    for description in rdf.findall(RDF + "Description"):
        for key, value in description.attrib.items():
            if not key.startswith((RDF, LANG)):
                yield _Property(description, key, None, len(value.encode()))
        for element in description:
            yield _Property(description, element.tag, element, len(ET.tostring(element, encoding="utf-8")))


def _remove_pointers(root: ET.Element) -> None:
    for node in root.iter():
        node.attrib.pop(HAS_EXTENDED, None)
        for child in node.findall(HAS_EXTENDED):
            node.remove(child)


def _empty() -> Packet:
    root = ET.Element("{adobe:ns:meta/}xmpmeta")
    rdf = ET.SubElement(root, RDF + "RDF")
    ET.SubElement(rdf, RDF + "Description", {RDF + "about": ""})
    return Packet(root)


def _add_event(rdf: ET.Element, software: str) -> None:
    """Append the event "resized" to xmpMM:History (part 2, ResourceEvent); no time, so that outputs are repeatable."""
    history = next(rdf.iter(HISTORY), None)
    if history is None:
        description = rdf.find(RDF + "Description")
        if description is None:
            description = ET.SubElement(rdf, RDF + "Description", {RDF + "about": ""})
        history = ET.SubElement(description, HISTORY)
    events = history.find(RDF + "Seq")
    if events is None:
        events = ET.SubElement(history, RDF + "Seq")
    event = {name("stEvt:action"): "resized", name("stEvt:softwareAgent"): software}
    ET.SubElement(events, RDF + "li", event)


def _to_prefixes(root: ET.Element, prefixes: dict[str, str]) -> None:
    """Replace each "{namespace}local" in a tree by "prefix:local" and declare the prefixes at the root."""
    taken: dict[str, str] = {"http://www.w3.org/XML/1998/namespace": "xml"}
    usual = {uri: prefix for prefix, uri in NAMESPACES.items()}

    def short(full: str) -> str:
        if full[0] != "{":
            return full
        uri, _, local = full[1:].partition("}")
        if uri not in taken:
            prefix = prefixes.get(uri) or usual.get(uri) or "ns"
            number = 1
            while prefix in taken.values():
                prefix, number = f"{prefix.rstrip('0123456789')}{number}", number + 1
            taken[uri] = prefix
        return f"{taken[uri]}:{local}"

    for node in root.iter():
        node.tag = short(node.tag)
        attributes = {short(key): value for key, value in node.attrib.items()}
        node.attrib.clear()
        node.attrib.update(attributes)
    del taken["http://www.w3.org/XML/1998/namespace"]
    for uri, prefix in taken.items():
        root.set(f"xmlns:{prefix}", uri)
