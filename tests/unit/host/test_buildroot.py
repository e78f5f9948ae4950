"""The Buildroot base. With MAMORI_BUILDROOT (the pinned tree) every recipe is configured for real; with MAMORI_LINUX (the
sources of a kernel of the same series) its kernel is too. Neither can be fetched by a test."""

import io
import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from firmware.bases import Package
from firmware.bases.buildroot import (
    HOST_TOOLS,
    TREE_VARIABLE,
    BuildrootBase,
    check_survival,
    given_tree,
    parse_hashes,
    parse_packages,
    read_lock,
)
from firmware.console import Console
from firmware.process import run
from firmware.recipe import ROOT, Image, read_image, recipe_names
from firmware.render import render_image, write_rendered
from firmware.workspace import Workspace
from mamori.formats.problems import BadInputError, MamoriError
from mamori.formats.release import Base
from tests.support.need import need
from tests.support.recipes import SOURCE

LINUX_VARIABLE = "MAMORI_LINUX"
RECIPES = [name for name in recipe_names() if read_image(name, SOURCE).recipe.base is Base.BUILDROOT]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Console(stream=io.StringIO(), progress=io.StringIO()), out=tmp_path / "out")


@pytest.fixture
def tree() -> Path:
    found = given_tree()
    if found is None:
        pytest.skip(f"{TREE_VARIABLE} names no Buildroot tree")
    return found


def rendered(image: Image, folder: Path) -> Path:
    write_rendered(render_image(image), folder / "rendered")
    return folder / "rendered"


SURVIVAL = {
    "everything is there": ('A=y\nB="x y"\n', '# comment\nA=y\nB="x y"\nC=n\n', []),
    "a lost symbol": ("A=y\nB=y\n", "A=y\n", ["B=y"]),
    "a symbol that was turned off": ("A=y\n", "# A is not set\n", ["A=y"]),
    "another value": ('A="x"\nB=1\n', 'A="y"\nB=10\n', ['A="x"', "B=1"]),
    "a module that should be built in": ("A=y\n", "A=m\n", ["A=y"]),
    "a prefix of another symbol": ("A=y\n", "AB=y\n", ["A=y"]),
    "unset and unset": ("# A is not set\n", "# A is not set\n", []),
    "unset and unknown": ("# A is not set\n", "B=y\n", []),
    "unset, but selected by another": ("# A is not set\n", "A=y\n", ["# A is not set"]),
    "unset, but a module": ("# A is not set\n", "A=m\n", ["# A is not set"]),
    "comments and blank lines": ("# A word about A\n\n#\n# A is not settled\nA=y\n", "A=y\n", []),
    "asked for twice, with different values": ("A=y\n# A is not set\n", "A=y\n", ["# A is not set"]),
    "an empty string": ('A=""\n', "A=y\n", ['A=""']),
}


@pytest.mark.parametrize(("requested", "final", "lost"), SURVIVAL.values(), ids=SURVIVAL)
def test_what_was_asked_for_and_is_not_there_is_named(requested: str, final: str, lost: list[str]) -> None:
    assert check_survival(requested, final) == lost


def test_only_digests_that_are_strong_are_taken_from_a_hash_file() -> None:
    text = "# From the author\nsha1  aa  a.tar.xz\nsha256  bb  a.tar.xz\nsha512\tcc\ta.tar.xz\n\nsha256  dd  COPYING\n"
    assert parse_hashes(text) == {"a.tar.xz": "bb", "COPYING": "dd"}


def test_packages_on_the_target_are_listed_with_version_licence_and_digest() -> None:
    package = {
        "type": "target",
        "virtual": False,
        "version": "1.2",
        "licenses": "GPL-2.0, MIT",
        "downloads": [{"source": "a.tar.xz"}],
    }
    entries = {
        "zlib": {**package, "virtual": True},
        "own": {**package, "version": "", "downloads": []},
        "host-a": {**package, "type": "host"},
        "rootfs-tar": {"type": "rootfs"},
        "b": {**package, "downloads": [], "licenses": "unknown"},
        "a": package,
    }
    assert parse_packages(entries, {"a.tar.xz": "bb"}) == (
        Package("a", "1.2", sha256="bb", licences=("GPL-2.0", "MIT")),
        Package("b", "1.2", licences=("unknown",)),
    )


def test_the_lock_names_the_pinned_release() -> None:
    lock = read_lock()
    assert (lock.release, lock.commit) == ("2026.05.1", "cb857ba4c87a93e5265a9e4a3f32071abf39e14a")


def test_a_lock_without_a_whole_commit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "buildroot.lock").write_text('release = "2026.05.1"\ncommit = "cb857ba"\nurl = "somewhere"\n')
    with pytest.raises(BadInputError, match=r"buildroot\.lock: commit: expected a git commit of 40 hex digits"):
        read_lock(tmp_path)


class TestMissing:
    """One paragraph that says what is missing, how to get it, and what works without."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """A git tree that looks like Buildroot, but is not the pinned commit."""
        need("git", "a checkout to look at")
        folder = tmp_path / "br"
        (folder / "support/kconfig").mkdir(parents=True)
        (folder / "support/kconfig/conf.c").write_text("")
        self.git(folder, "init", "--quiet")
        self.git(folder, "add", ".")
        self.git(folder, "commit", "--quiet", "--message", "A tree")
        return folder

    def git(self, folder: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
        return run(["git", "-C", folder, *identity, *arguments], explain="prepare a tree").stdout.strip()

    def pin(self, root: Path, commit: str) -> None:
        (root / "buildroot.lock").write_text(
            f'release = "2026.05.1"\ncommit = "{commit}"\nurl = "https://example.invalid/br.git"\n'
        )

    def paragraph(self, root: Path, tree: Path | None) -> str:
        workspace = Workspace(Console(stream=io.StringIO(), progress=io.StringIO()), root, root / "out")
        found = BuildrootBase(workspace, tree).missing(read_image("appliance", SOURCE))
        return "".join(text for text in found if text.startswith("Recipe"))

    def test_a_missing_tree_says_how_to_get_one(self, tmp_path: Path) -> None:
        self.pin(tmp_path, "a" * 40)
        text = self.paragraph(tmp_path, None)
        assert "Recipe `appliance` is built from Buildroot 2026.05.1, and there is no Buildroot tree here." in text
        assert "git clone --depth 1 --branch 2026.05.1 https://example.invalid/br.git ../buildroot-2026.05.1\n" in text
        assert "--buildroot PATH or MAMORI_BUILDROOT=PATH. Recipe `lab` needs none." in text

    def test_a_folder_that_is_no_checkout(self, tmp_path: Path) -> None:
        self.pin(tmp_path, "a" * 40)
        assert f"and {tmp_path} is no git checkout of Buildroot." in self.paragraph(tmp_path, tmp_path)
        assert "nowhere is no git checkout of Buildroot." in self.paragraph(tmp_path, tmp_path / "nowhere")

    def test_another_commit_is_named_with_ours(self, tmp_path: Path, checkout: Path) -> None:
        self.pin(tmp_path, "a" * 40)
        commit = self.git(checkout, "rev-parse", "HEAD")
        assert f"is at commit {commit}, while buildroot.lock asks for {'a' * 40}." in self.paragraph(tmp_path, checkout)

    def test_the_pinned_commit_is_enough_until_it_is_changed(self, tmp_path: Path, checkout: Path) -> None:
        self.pin(tmp_path, self.git(checkout, "rev-parse", "HEAD"))
        assert self.paragraph(tmp_path, checkout) == ""
        (checkout / "support/kconfig/conf.c").write_text("changed")
        (checkout / "new.mk").write_text("")
        assert "has local changes (support/kconfig/conf.c, new.mk)." in self.paragraph(tmp_path, checkout)

    def test_tools_of_the_host_are_named_all_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pin(tmp_path, "a" * 40)
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in set(HOST_TOOLS) - {"bc"}:
            (tools / name).symlink_to("/bin/true")
        monkeypatch.setenv("PATH", str(tools))
        workspace = Workspace(Console(stream=io.StringIO(), progress=io.StringIO()), tmp_path, tmp_path / "out")
        texts = BuildrootBase(workspace, None).missing(read_image("appliance", SOURCE))
        assert texts[1:] == ["Buildroot needs tools that are not on this machine: apt-get install bc"]

    def test_a_build_without_a_tree_ends_with_the_same_paragraph(self, tmp_path: Path, workspace: Workspace) -> None:
        with pytest.raises(MamoriError, match="there is no Buildroot tree here"):
            BuildrootBase(workspace, None).build(read_image("appliance", SOURCE), tmp_path)
        assert not workspace.out.exists()


def test_a_release_has_no_way_in_and_a_lab_image_has_one() -> None:
    release, lab = (
        render_image(read_image(name, SOURCE))["buildroot/defconfig"].splitlines() for name in ("appliance", "appliance-qemu")
    )
    for symbol in ("BR2_PACKAGE_OPENSSH", "BR2_PACKAGE_UTIL_LINUX_LOGIN"):
        assert f"# {symbol} is not set" in release
        assert f"{symbol}=y" in lab
    for symbol in ("BR2_TARGET_ENABLE_ROOT_LOGIN", "BR2_TARGET_GENERIC_GETTY", "BR2_PACKAGE_DROPBEAR", "BR2_PACKAGE_BUSYBOX"):
        assert f"# {symbol} is not set" in release
        assert f"# {symbol} is not set" in lab


@pytest.mark.parametrize("name", ["appliance", "appliance-qemu"])
def test_no_symbol_is_asked_for_twice(name: str) -> None:
    files = render_image(read_image(name, SOURCE))
    for file in ("buildroot/defconfig", "buildroot/linux.fragment"):
        requests = re.findall(r"^(?:# )?(\w+)(?:=.*| is not set)$", files[file], re.MULTILINE)
        doubled = {symbol for symbol in requests if requests.count(symbol) > 1}
        assert not doubled, file
        assert len(requests) > 50


def finish(root: Path) -> set[str]:
    """Run the script that Buildroot runs on its finished tree; the files and links that are left."""
    for folder in ("etc/systemd/network", "etc/ssh", "usr/lib/systemd/system", "usr/lib/tmpfiles.d", "var/lib/clamav", "root"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in (
        "etc/hostname",
        "etc/fstab",
        "etc/passwd",
        "usr/lib/os-release",
        "etc/systemd/network/eth0.network",
        "var/lib/clamav/x",
    ):
        (root / name).write_text("Buildroot's\n")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    run([ROOT / "board/common/post-build.sh", root], explain="finish a tree")
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()}


def test_what_belongs_to_the_image_is_taken_out_of_the_base(tmp_path: Path) -> None:
    assert finish(tmp_path) == {"etc/passwd", "etc/machine-id", "usr/lib/systemd/system-preset/00-mamori.preset"}
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert list((tmp_path / "var").iterdir()) == []
    assert (tmp_path / "data").is_dir()


def test_the_labs_ssh_server_is_called_and_configured_as_the_overlay_expects(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/sshd.service").write_text("[Service]\nExecStartPre=/usr/bin/ssh-keygen -A\n")
    left = finish(tmp_path)
    assert "usr/lib/systemd/system/sshd.service" not in left
    assert {"usr/lib/systemd/system/ssh.service", "usr/lib/tmpfiles.d/ssh.conf"} <= left
    assert (tmp_path / "etc/ssh/sshd_config").read_text() == "Include /etc/ssh/sshd_config.d/*.conf\n"
    assert (ROOT / "overlay/lab/usr/lib/systemd/system/multi-user.target.wants/ssh.service").readlink() == Path("../ssh.service")


def test_the_scanner_and_the_signature_engine_are_started_by_our_units_alone(tmp_path: Path) -> None:
    kept = {"usr/sbin/clamd", "usr/bin/suricata", "etc/suricata/classification.config", "etc/suricata/reference.config"}
    units = {f"usr/lib/systemd/system/{name}" for name in ("clamav-daemon.service", "clamav-daemon.socket", "suricata.service")}
    taken = {"usr/bin/freshclam", "usr/sbin/clamonacc", "etc/suricata/suricata.yaml", "usr/share/suricata/rules/files.rules"}
    for name in kept | units | taken:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Buildroot's\n")
    left = finish(tmp_path)
    assert left & (units | taken) == set()
    assert left >= kept


class TestRealTree:
    """What Buildroot itself says of our configuration and packages."""

    def test_the_given_tree_is_the_pinned_one(self, workspace: Workspace, tree: Path) -> None:
        missing = BuildrootBase(workspace, tree).missing(read_image("appliance", SOURCE))
        assert [text for text in missing if "Recipe" in text] == []

    @pytest.mark.parametrize("name", RECIPES)
    def test_every_requested_line_survives(self, workspace: Workspace, tree: Path, tmp_path: Path, name: str) -> None:
        image = read_image(name, SOURCE)
        folder = BuildrootBase(workspace, tree).configure(image, rendered(image, tmp_path))
        final = (folder / ".config").read_text()
        assert "BR2_PACKAGE_MAMORI=y" in final.splitlines()
        assert check_survival((folder / "rendered/defconfig").read_text(), final) == []

    @pytest.mark.parametrize(
        "line",
        ["BR2_PACKAGE_SURICATTA=y", "BR2_PACKAGE_E2FSPROGS_FSCK=y", "# BR2_PACKAGE_SQUASHFS is not set"],
        ids=["misspelt", "a dependency that is not met", "unset, but selected by RAUC"],
    )
    def test_a_lost_line_is_named(self, workspace: Workspace, tree: Path, tmp_path: Path, line: str) -> None:
        image = read_image("appliance", SOURCE)
        folder = rendered(image, tmp_path)
        with (folder / "buildroot/defconfig").open("a") as defconfig:
            defconfig.write(f"{line}\n")
        with pytest.raises(MamoriError) as error:
            BuildrootBase(workspace, tree).configure(image, folder)
        assert str(error.value).startswith(f"1 requested line(s) did not survive in the configuration of Buildroot:\n    {line}\n")

    def test_our_package_is_listed_and_all_but_a_few_have_a_digest(self, workspace: Workspace, tree: Path, tmp_path: Path) -> None:
        image = read_image("appliance", SOURCE)
        folder = BuildrootBase(workspace, tree).configure(image, rendered(image, tmp_path))
        variables = [f"O={folder}", f"BR2_DL_DIR={tmp_path / 'dl'}", f"MAMORI_RENDERED={folder / 'rendered'}"]
        entries = json.loads(run(["make", "--silent", "-C", tree, *variables, "show-info"], explain="list packages").stdout)
        assert (entries["mamori"]["licenses"], entries["mamori"]["install_target"]) == ("Apache-2.0", False)
        files = [tree / name for entry in entries.values() for name in entry.get("hashes", ())]
        digests = {name: digest for file in files for name, digest in parse_hashes(file.read_text()).items()}
        packages = {package.name: package for package in parse_packages(entries, digests)}
        assert {"linux", "suricata", "clamav", "rauc", "systemd", "python3", "nftables"} <= packages.keys()
        without = {name for name, package in packages.items() if not re.fullmatch(r"[0-9a-f]{64}", package.sha256)}
        assert without == {"bzip2", "gcc-final", "libaio", "lvm2", "tzdata"}  # the compiler's libraries come with host-gcc-final
        assert packages["suricata"].version.startswith("8.")

    def test_the_kernels_digests_are_those_of_the_kernel_headers(self, tree: Path) -> None:
        ours = parse_hashes(render_image(read_image("appliance", SOURCE))["buildroot/patches/linux/linux.hash"])
        (version,) = (match[1] for match in map(re.compile(r"linux-(.*)\.tar\.xz").fullmatch, ours) if match)
        (theirs,) = (tree / "package/linux-headers" / version).glob("linux-headers.hash")
        assert ours.items() <= parse_hashes(theirs.read_text()).items()

    def test_buildroot_finds_nothing_to_say_about_our_packages(self, tree: Path) -> None:
        need(find_spec("magic") is not None, "check-package needs python-magic")
        need("shellcheck", "check-package looks at scripts with it")
        own = [path for folder in ("package", "board/common") for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
        files = [*own, *(ROOT / name for name in ("Config.in", "external.mk", "external.desc"))]
        result = run(
            [sys.executable, tree / "utils/check-package", "--br2-external", *files], explain="check our packages", cwd=ROOT
        )
        assert "0 warnings generated" in result.stderr


@pytest.mark.parametrize("name", recipe_names())
def test_the_kernel_has_everything_that_was_asked_for_and_no_module(tmp_path: Path, name: str) -> None:
    sources = os.environ.get(LINUX_VARIABLE)
    if not sources:
        pytest.skip(f"{LINUX_VARIABLE} names no kernel sources")
    for tool in ("flex", "bison", "gcc", "make"):
        need(tool, "builds the kernel's configuration tool")
    fragment = render_image(read_image(name, SOURCE))["buildroot/linux.fragment"]
    default = (Path(sources) / "arch/x86/configs/x86_64_defconfig").read_text()
    (tmp_path / ".config").write_text(default + fragment)
    run(["make", "-C", sources, "ARCH=x86_64", f"O={tmp_path}", "olddefconfig"], explain="configure the kernel")
    final = (tmp_path / ".config").read_text()
    assert check_survival(fragment, final) == []
    assert re.findall(r"^CONFIG_\w+=m$", final, re.MULTILINE) == []
