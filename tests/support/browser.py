"""Debian's Chromium, unpacked into the toolchain folder with its dependencies, with access to loopback only.

It is the headless shell of the machine's own release. Only the C library is the machine's; all other libraries and the
fonts are unpacked too, since a server has none of them. Nothing is installed, and no other browser is downloaded.
"""

import io
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image
from playwright.sync_api import BrowserContext, FloatRect, Locator, Page, sync_playwright

from local_stack.debian_packages import PackageArchive
from local_stack.folder_lock import folder_lock
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run

# With two cores busy with a stack, drawing a page takes many seconds.
PATIENCE_SECONDS = 120

_PACKAGE = "chromium-headless-shell"
_PROGRAM = "usr/lib/chromium/chromium-headless-shell"
# The C library belongs to the machine's loader; rendering needs no graphics driver.
_LEFT_OUT = re.compile(r"(?:libc6|libllvm[0-9]+|libgl1-mesa-dri|libz3-4|perl|perl-base|libperl[0-9.]+)_")
_LIBRARIES = ("usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib/*-linux-gnu/pulseaudio")
# Only this machine may be contacted: other names are not even looked up.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
# The background, the time axis and its labels have fewer.
_DRAWN = 150
_ELSEWHERE = re.compile(r"^https?://(?!127\.0\.0\.1:)")
_FONTS = '<?xml version="1.0"?>\n<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>\n'


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser that can be started, with the paths for its environment."""

    program: Path
    libraries: tuple[Path, ...]
    fonts: Path


def chromium(toolchain: Toolchain) -> Chromium:
    """Return the unpacked browser, downloaded on first use; raise `ToolMissing` if the packages are unavailable."""
    archive = PackageArchive(toolchain.folder / "apt")
    if archive.release.distribution != "debian":
        raise ToolMissing("the browser is unpacked from Debian's packages, on Debian only")
    place = toolchain.folder / "packages" / f"{archive.release.codename}-{_PACKAGE}-tree-{archive.architecture}"
    with folder_lock(place.parent):
        if not place.is_dir():
            logger().info("fetching %s with its libraries and fonts", _PACKAGE)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".unpacking-") as scratch:
                for package in archive.closure([_PACKAGE]):
                    if not _LEFT_OUT.match(package.name):
                        run(["dpkg-deb", "-x", package, Path(scratch) / "tree"], package="dpkg")
                (Path(scratch) / "tree").rename(place)
    libraries = tuple(path for pattern in _LIBRARIES for path in sorted(place.glob(pattern)))
    return Chromium(place / _PROGRAM, libraries, place / "usr/share/fonts")


@contextmanager
def running(browser: Chromium, home: Path, *, width: int = 1440, height: int = 1000) -> Iterator[BrowserContext]:
    """Start a browser with an empty profile in ``home``; pages are ``width`` by ``height`` pixels."""
    home.mkdir(parents=True, exist_ok=True)
    fonts = home / "fonts.conf"
    fonts.write_text(_FONTS.format(fonts=escape(str(browser.fonts)), cache=escape(str(home / "font-cache"))))
    environment: dict[str, str | float | bool] = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "FONTCONFIG_FILE": str(fonts),
        "LD_LIBRARY_PATH": ":".join(map(str, browser.libraries)),
    }
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            home / "profile",
            executable_path=browser.program,
            args=_FLAGS,
            env=environment,
            viewport={"width": width, "height": height},
            device_scale_factor=1,
        )
        try:
            # Requests to other machines are aborted in the browser.
            context.route(_ELSEWHERE, lambda route: route.abort())
            context.set_default_timeout(PATIENCE_SECONDS * 1000)
            yield context
        finally:
            context.close()


def wait_until_drawn(canvas: Locator, *, colours: int = _DRAWN) -> None:
    """Wait until a run graph has content and stops moving; it has no text to wait for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before, shown = b"", canvas.screenshot()
    while shown != before or _colours(shown) < colours:
        assert time.monotonic() < deadline, f"the run graph stays empty: {_colours(shown)} colours"
        canvas.page.wait_for_timeout(500)
        before, shown = shown, canvas.screenshot()


def write_picture(page: Page, file: Path, *, height: int) -> None:
    """Write the upper ``height`` pixels of a page as a small PNG: 128 colours are enough for text."""
    assert page.viewport_size is not None
    part: FloatRect = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}
    with Image.open(io.BytesIO(page.screenshot(animations="disabled", clip=part))) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


def _colours(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as image:
        return len(image.convert("RGB").getcolors(1 << 24) or ())
