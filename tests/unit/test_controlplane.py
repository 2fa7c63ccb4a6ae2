"""The pure parts of the local control plane: what is found, how it is keyed, what is written."""

import base64
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from warmpool.tools import binaries, gobuild
from warmpool.tools import kubeconfig as kubeconfigs
from warmpool.tools.binaries import CONTROL_PLANE
from warmpool.tools.controlplane import ControlPlane, open_cluster
from warmpool.tools.gobuild import BinariesError
from warmpool.tools.kubeconfig import KubeconfigError
from warmpool.tools.servers import Layout, apiserver_command, etcd_command

FILES = {"go.mod": b"module m", "main.go": b"package main"}
LINUX = "go1.26.8 linux amd64"
TO_OUTPUT = 'while [ "$1" != -o ]; do shift; done'


def a_kubeconfig(context: str = kubeconfigs.LOCAL_CONTEXT) -> str:
    text = kubeconfigs.render(
        server="https://127.0.0.1:20001",
        authority=b"CERT",
        user="admin",
        token="t0",  # noqa: S106 - a made-up one
    )
    return text.replace(kubeconfigs.LOCAL_CONTEXT, context)


def programs_at(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).touch(mode=0o755)
    return directory


def a_go_that(directory: Path, *, builds: str) -> dict[str, str]:
    """An environment whose Go answers `go env`, and builds by the shell script's lines."""
    go = programs_at(directory / "bin", "go") / "go"
    go.write_text(f"#!/bin/sh\n[ $1 = env ] && echo {LINUX} && exit\n{builds}\n")
    path = f"{go.parent}:{os.environ['PATH']}"
    return {"PATH": path, "XDG_CACHE_HOME": str(directory / "cache")}


def a_cached_binary(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gobuild, "go_platform", lambda *_: LINUX)
    key = gobuild.cache_key(gobuild.source_files(gobuild.source_directory(CONTROL_PLANE)), LINUX)
    entry = programs_at(gobuild.cache_root(CONTROL_PLANE, environ) / key, CONTROL_PLANE.name)
    return entry / CONTROL_PLANE.name


def test_the_key_is_the_same_for_the_same_inputs_in_any_order() -> None:
    backwards = dict(reversed(FILES.items()))
    assert gobuild.cache_key(FILES, LINUX) == gobuild.cache_key(backwards, LINUX)


@pytest.mark.parametrize(
    ("files", "platform"),
    [
        pytest.param({**FILES, "main.go": b"package other"}, LINUX, id="content"),
        pytest.param({**FILES, "more.go": b""}, LINUX, id="file"),
        pytest.param({"go.mod": b"module m\0main.go", "main.go": b""}, LINUX, id="boundaries"),
        pytest.param(FILES, "go1.27.0 linux amd64", id="go"),
        pytest.param(FILES, "go1.26.8 linux arm64", id="architecture"),
    ],
)
def test_the_key_changes_with_every_input(files: dict[str, bytes], platform: str) -> None:
    assert gobuild.cache_key(files, platform) != gobuild.cache_key(FILES, LINUX)


@pytest.mark.parametrize("other", [(), ("-tags",), ("-tagsa",), ("a", "-tags")])
def test_the_key_changes_with_the_programs_own_flags(other: tuple[str, ...]) -> None:
    """With other tags it was not built again, and was another program than it was taken for."""
    assert gobuild.cache_key(FILES, LINUX, other) != gobuild.cache_key(FILES, LINUX, ("-tags", "a"))


def test_what_is_built_is_found_by_its_flags(tmp_path: Path) -> None:
    """Each kind of it is built once, with its flags."""
    log = tmp_path / "flags"
    environ = a_go_that(tmp_path, builds=f'echo "$@" >> {log}\n{TO_OUTPUT}\n: > "$2"')
    tagged = replace(CONTROL_PLANE, flags=("-tags", "some"))
    for program in (CONTROL_PLANE, tagged, CONTROL_PLANE, tagged):
        assert gobuild.ensure_built(program, environ).exists()
    assert ["-tags some" in line for line in log.read_text().splitlines()] == [False, True]


def test_the_cache_follows_xdg_and_else_home() -> None:
    assert gobuild.cache_root(CONTROL_PLANE, {"HOME": "/h"}) == Path(
        "/h/.cache/warmpool/controlplane"
    )
    xdg = {"HOME": "/h", "XDG_CACHE_HOME": "/x"}
    assert gobuild.cache_root(CONTROL_PLANE, xdg) == Path("/x/warmpool/controlplane")


def test_the_version_comes_from_go_mod() -> None:
    text = "require (\n\tk8s.io/kubectl v0.36.3\n\tk8s.io/kubernetes v1.36.3\n)\n"
    assert binaries.kubernetes_version(text) == "v1.36.3"
    assert "gitMajor=1 " in binaries.linker_flags("v1.36.3")
    assert binaries.linker_flags("v1.36.3").endswith("gitMinor=36")


def test_kubebuilder_assets_come_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    a_cached_binary(environ, monkeypatch)
    assets = programs_at(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    found = binaries.find_programs({**environ, "KUBEBUILDER_ASSETS": str(assets)})
    assert found.etcd == (str(assets / "etcd"),)
    assert found.kube_controller_manager is None


def test_the_cache_comes_before_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    binary = a_cached_binary(environ, monkeypatch)
    assert binaries.find_programs(environ) == binaries.programs_of(binary)


def test_incomplete_assets_are_refused_by_name(tmp_path: Path) -> None:
    programs_at(tmp_path, "etcd")
    with pytest.raises(BinariesError, match="lacks kube-apiserver, kubectl"):
        binaries.find_programs({"KUBEBUILDER_ASSETS": str(tmp_path)})


def test_without_go_the_error_names_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(BinariesError, match=r"Go is not on PATH.*KUBEBUILDER_ASSETS.*KUBECONFIG"):
        binaries.find_programs({"PATH": str(tmp_path), "HOME": str(tmp_path)})


def test_a_failing_build_says_why_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = a_go_that(tmp_path, builds="echo no route; exit 7")
    with pytest.raises(BinariesError, match=r"exit code 7(.|\n)*no route"):
        binaries.find_programs(environ)
    left = [path.name for path in gobuild.cache_root(CONTROL_PLANE, environ).iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []
    assert "building the local Kubernetes control plane" in capsys.readouterr().err


def test_a_build_appears_whole_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    environ = a_go_that(tmp_path, builds=f'{TO_OUTPUT}; echo built > "$2"')
    key = gobuild.cache_key(gobuild.source_files(gobuild.source_directory(CONTROL_PLANE)), LINUX)
    programs_at(gobuild.cache_root(CONTROL_PLANE, environ) / f".{key}.halfbuilt", "junk")
    binary = binaries.ensure_binary(environ)
    assert binary.read_text() == "built\n"
    assert {path.name for path in binary.parent.parent.iterdir()} == {key, f"{key}.lock"}


def test_two_that_need_the_same_binary_build_it_once(tmp_path: Path) -> None:
    count = f'echo once >> "{tmp_path}/builds"; sleep 0.3; {TO_OUTPUT}; touch "$2"'
    environ = a_go_that(tmp_path, builds=count)
    with ThreadPoolExecutor(2) as threads:
        built = set(threads.map(binaries.ensure_binary, [environ, environ]))
    assert len(built) == 1
    assert (tmp_path / "builds").read_text() == "once\n"


def test_a_kubeconfig_verifies_the_server_and_has_our_context() -> None:
    document = yaml.safe_load(a_kubeconfig())
    [cluster] = document["clusters"]
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"CERT"
    assert document["current-context"] == "warmpool-local"
    assert "insecure" not in a_kubeconfig()


def test_another_users_kubeconfig_holds_nothing_of_the_admins() -> None:
    text = kubeconfigs.for_user(a_kubeconfig(), user="someone", token="t1")  # noqa: S106
    assert "t0" not in text
    assert yaml.safe_load(text)["contexts"][0]["context"]["user"] == "someone"


@pytest.mark.parametrize("context", ["warmpool-local", "kind-ci"])
def test_tests_may_write_to_their_own_clusters(context: str, tmp_path: Path) -> None:
    (tmp_path / "k").write_text(a_kubeconfig(context))
    assert kubeconfigs.assert_test_context(tmp_path / "k") == context


@pytest.mark.parametrize("context", ["production", "my-kind-cluster", "warmpool-local-2"])
def test_tests_may_not_write_to_other_clusters(context: str, tmp_path: Path) -> None:
    (tmp_path / "k").write_text(a_kubeconfig(context))
    environ = {"WARMPOOL_KUBECONFIG": str(tmp_path / "k")}
    with pytest.raises(KubeconfigError, match=context), open_cluster(environ=environ):
        pytest.fail("opened")


def test_a_kubeconfig_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="names no current context"):
        kubeconfigs.assert_test_context(tmp_path / "none")


def test_a_named_kubeconfig_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(a_kubeconfig("kind-ci"))
    kubectl = programs_at(tmp_path / "bin", "kubectl") / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$KUBECONFIG" "$@"\n')
    environ = {
        "WARMPOOL_KUBECONFIG": str(tmp_path / "k"),
        "PATH": f"{kubectl.parent}:/usr/bin:/bin",
    }
    with open_cluster(environ=environ) as cluster:
        assert not isinstance(cluster, ControlPlane)
        assert cluster.kubectl("get", "pods").stdout == f"{tmp_path / 'k'} get pods\n"


def test_tokens_survive_the_file_they_are_written_to(tmp_path: Path) -> None:
    groups = {"admin": ("system:masters", "more")}
    text = kubeconfigs.token_file({"admin": "a1", "user": "u1"}, groups)
    assert text.splitlines() == ['a1,admin,admin,"system:masters,more"', 'u1,user,user,""']
    (tmp_path / "tokens").write_text(text)
    assert kubeconfigs.tokens_in(tmp_path / "tokens") == {"admin": "a1", "user": "u1"}
    assert kubeconfigs.tokens_in(tmp_path / "none") == {}


def test_a_signing_key_is_rfc_5915_on_p256() -> None:
    body = re.sub(r"-----[A-Z ]+-----|\n", "", kubeconfigs.signing_key(secret=5))
    der = base64.b64decode(body)
    assert der[1] == len(der) - 2
    assert der[7:39] == (5).to_bytes(32, "big")
    assert kubeconfigs.signing_key() != kubeconfigs.signing_key()


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    kubeconfigs.write_private(tmp_path / "deep" / "secret", "s")
    assert stat.S_IMODE((tmp_path / "deep" / "secret").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["secret"]


def test_servers_listen_on_loopback_only_and_etcd_syncs() -> None:
    programs, layout = binaries.programs_of(Path("/b")), Layout(Path("/d"))
    etcd = etcd_command(programs, layout, client=20001, peer=20002)
    server = apiserver_command(programs, layout, etcd=20001, port=20003, extra=["--x"])
    assert all("127.0.0.1" in word for word in etcd if "-urls" in word)
    assert not any("unsafe-no-fsync" in word for word in etcd)
    assert {"--bind-address=127.0.0.1", "--authorization-mode=RBAC", "--x"} <= set(server)
