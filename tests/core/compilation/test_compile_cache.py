"""Compiled files that are kept: found again, never a wrong or a damaged one, and only where it is
safe."""

import os
import stat
import sys
from pathlib import Path

import pytest

from dropout_policies.compilation import cache as compile_cache
from dropout_policies.compilation.cache import CacheError
from dropout_policies.compilation.compiler import Compiler

HOME = Path("/home/someone")


@pytest.fixture
def setting(tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    monkeypatch.setenv(compile_cache.SETTING, str(folder))
    return folder


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("linux", {}, HOME / ".cache" / "dropout-policies"),
        ("linux", {"XDG_CACHE_HOME": "/fast/cache"}, Path("/fast/cache/dropout-policies")),
        ("linux", {"XDG_CACHE_HOME": "not/absolute"}, HOME / ".cache" / "dropout-policies"),
        ("linux", {"XDG_CACHE_HOME": ""}, HOME / ".cache" / "dropout-policies"),
        ("darwin", {}, HOME / "Library" / "Caches" / "dropout-policies"),
        ("darwin", {"XDG_CACHE_HOME": "/fast/cache"}, Path("/fast/cache/dropout-policies")),
        ("win32", {"LOCALAPPDATA": "/local"}, Path("/local/dropout-policies/Cache")),
        ("win32", {}, HOME / "AppData" / "Local" / "dropout-policies" / "Cache"),
    ],
)
def test_the_folder_is_the_systems_cache(system, environment, expected, monkeypatch):
    made = []
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", compile_cache.SETTING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(HOME))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(compile_cache, "_make_folder", made.append)
    monkeypatch.setattr(Path, "stat", lambda _: os.lstat(os.path.expanduser("/")))
    monkeypatch.setattr(os, "geteuid", lambda: os.lstat("/").st_uid)
    assert compile_cache.cache_folder() == expected
    assert made == [expected]


def test_an_empty_setting_keeps_nothing(monkeypatch):
    monkeypatch.setenv(compile_cache.SETTING, "")
    assert compile_cache.cache_folder() is None


@pytest.mark.parametrize("home", ["relative", "~nobody-has-this-name"])
def test_without_a_home_nothing_is_kept(home, monkeypatch):
    monkeypatch.delenv(compile_cache.SETTING, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(CacheError, match="there is no cache folder"):
        compile_cache.cache_folder()


def test_a_folder_is_made_for_the_user_alone(setting):
    old = os.umask(0)
    try:
        folder = compile_cache.cache_folder()
        os.environ[compile_cache.SETTING] = str(setting / "deeper" / "still")
        compile_cache.cache_folder()
    finally:
        os.umask(old)
    assert folder == setting
    for made in (setting, setting / "deeper", setting / "deeper" / "still"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_a_folder_that_others_may_write_to_is_not_used(setting, mode):
    setting.mkdir()
    setting.chmod(mode)
    with pytest.raises(CacheError, match=f"{setting} is writable by other users"):
        compile_cache.cache_folder()
    setting.chmod(0o755)
    assert compile_cache.cache_folder() == setting


def test_a_folder_of_another_user_is_not_used(setting, monkeypatch):
    setting.mkdir(mode=0o755)
    monkeypatch.setattr(os, "geteuid", lambda: setting.stat().st_uid + 1)
    with pytest.raises(CacheError, match=f"{setting} belongs to another user"):
        compile_cache.cache_folder()


def test_a_folder_that_cannot_be_made_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for name in (tmp_path / "file", tmp_path / "file" / "below", "/proc/none", "a" * 300):
        monkeypatch.setenv(compile_cache.SETTING, str(name))
        with pytest.raises(CacheError, match="there is no cache folder"):
            compile_cache.cache_folder()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "part.c").write_text("int part(void) { return 1; }\n")
    (folder / "one.c").write_text('#include "part.c"\n')
    return folder / "one.c"


@pytest.fixture
def compiler(tmp_path):
    program = tmp_path / "some-cc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return Compiler((str(program), "-pipe"))


def test_a_name_stands_for_all_that_a_file_is_made_of(source, compiler, monkeypatch):
    def name(flags=("-O3",), by=compiler):
        return compile_cache.library_name(source, flags, by)

    names = [name()]
    assert name() == names[0]
    names.append(name(("-O2",)))
    names.append(name(("-O3", "-DDOUBLE")))
    names.append(name(by=Compiler(compiler.command[:1])))
    source.write_text("int other;\n")
    names.append(name())
    (source.parent / "part.c").write_text("int part(void) { return 2; }\n")
    names.append(name())
    os.utime(compiler.command[0], (1, 1))
    names.append(name())
    Path(compiler.command[0]).write_text("#!/bin/sh\n#another version\n")
    os.utime(compiler.command[0], (1, 1))
    names.append(name())
    monkeypatch.setattr(compile_cache, "_processor", lambda: "flags: sse2")
    names.append(name())
    monkeypatch.setattr(compile_cache, "_processor", lambda: "flags: sse2 avx")
    names.append(name())
    monkeypatch.setattr(compile_cache.platform, "machine", lambda: "another")
    names.append(name())
    assert len(set(names)) == len(names)
    assert all(each.startswith("one-") for each in names)


def test_parts_of_a_name_cannot_run_into_one_another(source, compiler):
    one = compile_cache.library_name(source, ("-DA", "B"), compiler)
    assert one != compile_cache.library_name(source, ("-DAB",), compiler)
    assert one != compile_cache.library_name(source, ("-D", "AB"), compiler)


def test_both_programs_of_a_command_count(tmp_path, source, compiler, monkeypatch):
    """As in CC="ccache gcc"."""
    second = tmp_path / "second-cc"
    second.write_text("#!/bin/sh\n")
    second.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    both = Compiler((*compiler.command[:1], "second-cc"))
    before = compile_cache.library_name(source, (), both)
    os.utime(second, (1, 1))
    assert compile_cache.library_name(source, (), both) != before


def test_without_a_processors_name_nothing_is_kept(source, compiler, monkeypatch):
    """Code for another processor would end the process."""
    monkeypatch.setattr(compile_cache, "_processor", lambda: "")
    with pytest.raises(CacheError, match="for which processor"):
        compile_cache.library_name(source, (), compiler)


X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Some Xeon
cpu MHz\t\t: {}
flags\t\t: fpu sse2 {}
bogomips\t: 4000

processor\t: 1
flags\t\t: fpu
"""

ARM = """processor\t: 0
BogoMIPS\t: {}
Features\t: fp asimd {}
CPU part\t: 0xd0c

"""


@pytest.mark.parametrize("text", [X86, ARM])
def test_a_processor_is_what_it_can_do_and_not_its_clock(text, tmp_path):
    path = tmp_path / "cpuinfo"

    def said(clock, feature):
        path.write_text(text.format(clock, feature))
        return compile_cache._cpuinfo(path)

    assert said(2000, "avx2") == said(3000, "avx2")
    assert said(2000, "avx2") != said(2000, "avx512f")
    assert "avx2" in said(2000, "avx2")


def test_a_processor_that_says_nothing_has_no_name(tmp_path):
    assert compile_cache._cpuinfo(tmp_path / "none") == ""
    (tmp_path / "odd").write_bytes(b"\xff\xfe\n\nprocessor: 0\n")
    assert compile_cache._cpuinfo(tmp_path / "odd") == ""


def test_this_processor_has_a_name():
    assert compile_cache._processor()


def test_what_is_kept_is_found(tmp_path):
    made = tmp_path / "made.so"
    made.write_bytes(b"some code")
    folder = tmp_path / "kept"
    folder.mkdir()
    assert compile_cache.find_library(folder, "one-1") is None
    kept = compile_cache.store_library(folder, "one-1", made)
    assert compile_cache.find_library(folder, "one-1") == kept
    assert compile_cache.find_library(folder, "one-2") is None
    assert [path.name for path in folder.iterdir()] == [kept.name], "nothing else is left there"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:0], lambda data: b"X" + data[1:]]
)
def test_what_is_damaged_is_removed(tmp_path, damage):
    made = tmp_path / "made.so"
    made.write_bytes(b"some code")
    kept = compile_cache.store_library(tmp_path, "one-1", made)
    kept.write_bytes(damage(kept.read_bytes()))
    assert compile_cache.find_library(tmp_path, "one-1") is None
    assert not kept.exists()
    assert compile_cache.find_library(tmp_path, "one-1") is None
    compile_cache.store_library(tmp_path, "one-1", made)
    assert compile_cache.find_library(tmp_path, "one-1") == kept


def test_nothing_half_written_is_seen(tmp_path, monkeypatch):
    """As where a disk is full."""
    made, folder = tmp_path / "made.so", tmp_path / "kept"
    made.write_bytes(b"some code")
    folder.mkdir()

    def full(*_):
        assert compile_cache.find_library(folder, "one-1") is None
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CacheError, match="No space left on device"):
        compile_cache.store_library(folder, "one-1", made)
    assert not list(folder.iterdir())


def test_a_lock_lets_one_in_at_a_time_and_is_gone_afterwards(tmp_path):
    with compile_cache.lock(tmp_path, "one-1", 10):
        assert (tmp_path / "one-1.lock").exists()
        with compile_cache.lock(tmp_path, "two-1", 10):
            pass
        sleeps = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compile_cache.time, "sleep", sleeps.append)
            with compile_cache.lock(tmp_path, "one-1", 0.05):
                assert sleeps, "it waits, but not for ever"
    assert not list(tmp_path.iterdir())
    with compile_cache.lock(tmp_path / "nowhere", "one-1", 10):
        pass


def test_a_lock_ends_with_an_error_inside(tmp_path):
    with pytest.raises(LookupError), compile_cache.lock(tmp_path, "one-1", 10):
        raise LookupError
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_cache.time, "sleep", lambda _: pytest.fail("still locked"))
        with compile_cache.lock(tmp_path, "one-1", 10):
            pass


def test_a_process_that_was_forked_meanwhile_does_not_hold_the_lock(tmp_path):
    reading, writing = os.pipe()
    with compile_cache.lock(tmp_path, "one-1", 10):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the parent is done
            os._exit(0)
    os.close(reading)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compile_cache.time, "sleep", lambda _: pytest.fail("still locked"))
            with compile_cache.lock(tmp_path, "one-1", 10):
                pass
    finally:
        os.close(writing)
        os.waitpid(child, 0)
