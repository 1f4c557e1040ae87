"""Fetches and cleans the texts that the pilot sweep trains on: documentation in English, German, French, Japanese.

    python data/fetch_corpora.py --out corpora [--work FOLDER]

The documentation packages of Debian 12 are fetched with ``apt-get download`` (nothing is installed; where apt has
no package lists yet, run ``apt-get update`` as root before), unpacked in the work folder, and cleaned. Written are
``corpora/<language>/<package>/<document>.txt``, a paragraph a line, and ``corpora/MANIFEST.json``: all in one step,
when all is done. The same versions of the packages give the same bytes. What the work folder holds is not fetched
again.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clean_text import clean_document
from read_manual import manual_paragraphs
from read_markup import markup_paragraphs

CODES = {"en": "en", "C": "en", "en-US": "en", "de": "de", "de-DE": "de", "fr": "fr", "fr-FR": "fr"}
CODES |= {"ja": "ja", "ja-JP": "ja"}
LEAST_BYTES = 200  # a shorter document is dropped
LICENCE_TEXT = re.compile(
    r"(?i)(?<![a-z])((perl)?gpl|g?fdl|perlartistic|licen[cs]e|legal|copying|copyright)(?![a-z])[^/]*$"
)


# -------------------------------------------------------------------------------------------------- what is fetched


@dataclass(frozen=True)
class Package:
    """A package, the version that the published table was made with, and which of its files are documents.

    ``documents`` matches paths in the package; its group ``code``, where there is one and it took part, is the
    language, else English.
    """

    name: str
    version: str
    licence: str  # of the texts, summarised from the package's copyright file
    documents: str


def _family(stem: str, ends: str, version: str, licence: str, documents: str) -> list[Package]:
    return [Package(f"{stem}{end}", version, licence, documents) for end in ends.split()]


_CODE = r"(?P<code>C|en|en-US|de|de-DE|fr|fr-FR|ja|ja-JP)"
_PAGE = r"(?:\.(?P<code>de|fr|ja|en))?\.html"
_MAN = rf"usr/share/man/(?:{_CODE}/)?man\d/.*\.\d\w*\.gz"
_MALLARD = rf"usr/share/help/{_CODE}/.*\.(page|docbook|xml)"
_KDE = rf"usr/share/doc/(kde/)?HTML/{_CODE}/.*\.docbook"
_JM = "as each page's original: free licences, mostly GPL, BSD and Linux-man-pages-copyleft"
_LILYPOND = rf".*/Documentation/(?!internals|snippets)[^/]*/(?!.*big-page|lilypond-.*index).*?{_PAGE}"
_NOTICE = "verbatim copies, and derived works under the same notice"
_POLICY = "GPL-2+, BSD-3-clause (FHS), notice kept"
_LINUX_MAN = "Linux-man-pages-copyleft, GPL-2+, BSD"

PACKAGES = [
    Package("debian-handbook", "11.20220922", "GPL-2+ or CC-BY-SA-3.0", rf".*/html/{_CODE}/.*\.html"),
    *_family(
        "debian-reference-", "en de fr ja", "2.100", "GPL-2+", rf"usr/share/debian-reference/.*?{_PAGE}"
    ),
    Package(
        "installation-guide-amd64",
        "20230508+deb12u1",
        "GPL-2",
        rf"usr/share/doc/[^/]*/{_CODE}/(?!apf).*\.html",
    ),
    Package("developers-reference", "12.18", "GPL-2", r"usr/share/developers-reference/[^/_]*\.html"),
    *_family("developers-reference-", "de fr ja", "12.18", "GPL-2", rf".*/{_CODE}/[^/_]*\.html"),
    Package("maint-guide", "1.2.53", "GPL-2+", rf".*/html/.*?{_PAGE}"),
    *_family("maint-guide-", "de fr ja", "1.2.53", "GPL-2+", rf".*/html/.*?{_PAGE}"),
    *_family(
        "debian-edu-doc-",
        "en de fr ja",
        "2.12.23~deb12u1",
        "GPL-2+",
        r".*-(?P<code>de|fr|ja|en)/.*\.html",
    ),
    Package("debian-faq", "11.1", _NOTICE, rf".*/FAQ/.*?{_PAGE}"),
    *_family("debian-faq-", "de fr", "11.1", _NOTICE, rf".*/FAQ/.*?{_PAGE}"),
    Package("debian-policy", "4.6.2.0", _POLICY, r".*\.html/[^/_]*\.html"),
    Package("debian-policy-ja", "4.6.2.0", _POLICY, rf".*/{_CODE}/.*\.html/[^/_]*\.html"),
    *_family("aptitude-doc-", "en fr ja", "0.8.13-5", "GPL-2+", rf".*/html/{_CODE}/.*\.html"),
    Package("gnome-user-docs", "43.0-2", "CC-BY-SA-3.0", _MALLARD),
    Package("gnome-devel-docs", "40.3-1", "CC-BY-SA-3.0, CC-BY-SA-4.0, GFDL-1.1+", _MALLARD),
    Package("evolution-common", "3.46.4-2+deb12u1", "CC-BY-SA-3.0", _MALLARD),
    Package("evince-common", "43.1-2+deb12u1", "CC-BY-SA-3.0, GFDL-1.1", _MALLARD),
    Package("brasero-common", "3.12.3-2", "CC-BY-SA-3.0, GFDL-1.1+", _MALLARD),
    Package("kate5-data", "4:22.12.3-1", "GFDL-1.2+", _KDE),
    Package("konqueror", "4:22.12.3-1", "GFDL-1.2+", _KDE),
    Package("khelpcenter", "4:22.12.3-1", "GFDL-1.2+", _KDE),
    Package("kmail", "4:22.12.3-1", "GFDL-1.2+", _KDE),
    Package("korganizer", "4:22.12.3-1", "GFDL-1.2+", _KDE),
    Package("kmymoney-common", "5.1.3-1", "GFDL-1.2+", _KDE),
    *_family(
        "libreoffice-help-",
        "en-us de fr ja",
        "4:7.4.7-1+deb12u14",
        "MPL-2.0",
        rf".*/help/{_CODE}/text/.*\.html",
    ),
    *_family("gimp-help-", "en de fr ja", "2.10.34-2", "GFDL-1.2+", rf".*/help/{_CODE}/.*\.html"),
    Package("kicad-doc-en", "6.0.11+dfsg-1", "GPL-3+ or CC-BY-3.0+", rf".*/help/{_CODE}/.*\.html"),
    Package(
        "lilypond-doc-html",
        "2.24.1-2",
        "GFDL-1.3+",
        _LILYPOND,
    ),
    *_family(
        "lilypond-doc-html-",
        "de fr ja",
        "2.24.1-2",
        "GFDL-1.3+",
        _LILYPOND,
    ),
    Package("apache2-doc", "2.4.71-1~deb12u1", "Apache-2.0", rf".*/manual/{_CODE}/.*\.html"),
    Package("manpages", "6.03-2", _LINUX_MAN, _MAN),
    Package("manpages-dev", "6.03-2", _LINUX_MAN, _MAN),
    *_family("manpages-", "de de-dev fr fr-dev", "4.18.1-1", "GPL-3+", _MAN),
    *_family("manpages-", "ja ja-dev", "0.5.0.0.20221215+dfsg-1", _JM, _MAN),
    Package(
        "python3.11-doc", "3.11.2-6+deb12u9", "PSF-2", r".*/html/(?!.*(_sources|genindex|changelog)).*\.html"
    ),
    Package(
        "python-django-doc",
        "3:3.2.25-0+deb12u7",
        "BSD-3-clause",
        r".*/html/(?!_modules|_sources|genindex).*\.html",
    ),
    Package("postgresql-doc-15", "15.20-0+deb12u1", "PostgreSQL", r".*/html/.*\.html"),
    Package("git-doc", "1:2.39.5-0+deb12u3", "GPL-2", r".*\.html"),
    Package("sqlite3-doc", "3.40.1-2+deb12u2", "public domain", r".*\.html"),
    Package("perl-doc", "5.36.0-7+deb12u4", "GPL-1+ or Artistic", _MAN),
    Package("erlang-doc", "1:25.2.3+dfsg-1+deb12u4", "Apache-2.0", r".*\.html"),
    Package("linux-doc-6.1", "6.1.192-2", "GPL-2", r".*/html/(?!_|translations|genindex|search).*\.html"),
]


# -------------------------------------------------------------------------------------------- from package to texts


def fetch(package: Package, folder: Path) -> Path:
    """The package's file in ``folder``: downloaded in the pinned version, or in another if apt has only that."""
    for wanted in (f"{package.name}={package.version}", package.name):
        if found := sorted(folder.glob(f"{package.name}_*.deb")):
            return found[-1]
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        run("apt-get", "-q", "download", wanted, folder=partial, check=False)
        for path in partial.glob("*.deb"):
            path.rename(folder / path.name)
    if found := sorted(folder.glob(f"{package.name}_*.deb")):
        return found[-1]
    sys.exit(
        f"apt-get download {package.name} gave no file; expected Debian 12 and its package lists:"
        " run apt-get update as root, then this again"
    )


def run(*command: str, folder: Path | None = None, check: bool = True) -> str:
    """What a command prints; the script ends with a line that says why where it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"no {command[0]} here; expected Debian 12, or another system that has apt-get and dpkg-deb")
    if check and done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}; remove that file and run this again")
    return done.stdout.strip()


def unpack(archive: Path, folder: Path) -> Path:
    """The package's files below ``folder``; a folder that is there is whole."""
    target, partial = folder / archive.stem, folder / "partial"
    if not target.exists():
        shutil.rmtree(partial, ignore_errors=True)
        run("dpkg-deb", "-x", str(archive), str(partial))
        partial.rename(target)
    return target


def documents(package: Package, root: Path) -> Iterator[tuple[str, str, Path]]:
    """(language, name, file) of each document of an unpacked package, sorted by path, without links and licences."""
    pattern = re.compile(package.documents)
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).as_posix()
        found = pattern.fullmatch(inside)
        if found and not LICENCE_TEXT.search(inside) and path.is_file() and not path.is_symlink():
            name = re.sub(r"[^\w.+-]", "_", inside.removeprefix("usr/share/").replace("/", "."))
            yield CODES[found.groupdict().get("code") or "en"], name, path


def paragraphs(path: Path) -> list[str]:
    """The paragraphs of a document: a manual page where it is packed, else markup."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return manual_paragraphs(gzip.decompress(data).decode("utf-8", errors="replace"))
    return markup_paragraphs(data.decode("utf-8", errors="replace"))


def clean_package(
    package: Package, root: Path, out: Path, seen: dict[str, set[str]]
) -> dict[str, dict[str, int]]:
    """Writes a package's documents. Per language: files, their bytes, and characters of prose dropped as foreign."""
    counts: dict[str, dict[str, int]] = {}
    for language, name, path in documents(package, root):
        count = counts.setdefault(language, {"files": 0, "bytes": 0, "foreign_characters": 0})
        lines, foreign = clean_document(paragraphs(path), language, seen.setdefault(language, set()))
        count["foreign_characters"] += foreign
        text = ("\n\n".join(lines) + "\n").encode()
        if len(text) >= LEAST_BYTES:
            target = out / language / package.name / f"{name}.txt"
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(text)
            count["files"] += 1
            count["bytes"] += len(text)
    return {language: count for language, count in counts.items() if count["files"]}


# ------------------------------------------------------------------------------------------------------ all of it


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of all texts below a folder, in the order of their names."""
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.txt")):
        data = path.read_bytes()
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


def manifest(rows: list[dict], folder: Path) -> dict:
    """What was written: totals and sha256 a language, and each package with its version and licence."""
    languages = {}
    for language in sorted({language for row in rows for language in row["languages"]}):
        counts = [row["languages"][language] for row in rows if language in row["languages"]]
        totals = {key: sum(count[key] for count in counts) for key in ("files", "bytes")}
        languages[language] = totals | {"sha256": digest(folder / language)}
    return {"languages": languages, "packages": sorted(rows, key=lambda row: row["name"])}


def build(out: Path, work: Path) -> None:
    out = out.resolve()
    archives, unpacked, new = work / "packages", work / "unpacked", out.with_name(f".{out.name}.partial")
    shutil.rmtree(new, ignore_errors=True)
    for folder in (archives, unpacked, new):
        folder.mkdir(parents=True, exist_ok=True)
    rows, seen = [], {}
    for package in PACKAGES:
        archive = fetch(package, archives)
        version = run("dpkg-deb", "-f", str(archive), "Version")
        counts = clean_package(package, unpack(archive, unpacked), new, seen)
        row = {"name": package.name, "version": version, "licence": package.licence, "languages": counts}
        rows.append(row if version == package.version else row | {"pinned_version": package.version})
        sizes = ", ".join(
            f"{language} {count['bytes']:,} bytes" for language, count in sorted(counts.items())
        )
        sys.stderr.write(f"{package.name} {version}: {sizes or 'nothing'}\n")
    text = json.dumps(manifest(rows, new), indent=1, sort_keys=True) + "\n"
    (new / "MANIFEST.json").write_text(text, encoding="utf-8", newline="\n")
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fetch and clean the texts that the pilot sweep trains on.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the texts, replaced when all are made"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("corpora-work"),
        help="folder for the packages: 0.6 GB, unpacked 2.5 GB",
    )
    options = parser.parse_args(arguments)
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "MANIFEST.json").is_file():
        parser.error(f"{options.out} holds files that this script has not written; name a new folder")
    build(options.out, options.work)


if __name__ == "__main__":
    main()
