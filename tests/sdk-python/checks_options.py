"""Options of `Sandbox.create`: each has its documented effect or is refused."""

from typing import Any
import base64
import json
import uuid

import modal
from harness import app, equal, raises, sandbox, sh
from modal import exception


def create(**options: Any) -> Any:
    return modal.Sandbox.create(app=app(), **options)


def bucket(name: str, **options: Any) -> Any:
    return modal.CloudBucketMount(name, **options)


def test_options_a_bucket_is_a_directory_that_all_its_mounts_share() -> None:
    """options: a bucket is a directory that all its mounts share"""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    with sandbox(volumes={"/b": bucket(name)}) as one, sandbox(volumes={"/mnt/b": bucket(name)}) as two:
        sh(one, "mkdir -p /b/data && echo one > /b/data/f")
        equal(sh(two, "cat /mnt/b/data/f")[0], "one\n")
    with sandbox(volumes={"/b": bucket(name, key_prefix="data/", read_only=True)}) as three:
        out, err, code = sh(three, "cat /b/f; echo x > /b/g")
        equal(out, "one\n")
        assert code != 0 and "read-only" in err.lower(), (err, code)
    other = "https://account.r2.cloudflarestorage.com"
    credentials = modal.Secret.from_dict({"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"})
    with sandbox(volumes={"/b": bucket(name, bucket_endpoint_url=other, secret=credentials)}) as four:
        equal(sh(four, "ls -A /b; env | grep -c AWS")[0], "0\n")


def test_options_invalid_buckets_are_refused() -> None:
    """options: invalid buckets are refused"""
    raises(exception.InvalidError, create, volumes={"/b": bucket("no/such")}, containing="bucket name")
    raises(exception.InvalidError, create, volumes={"/proc/b": bucket("b")}, containing="/proc/b")
    raises(exception.NotFoundError, create, volumes={"/b": bucket("b", secret=modal.Secret.from_name("none"))})


def test_options_unavailable_features_are_refused() -> None:
    """options: unavailable features are refused"""
    raises(exception.NotFoundError, create, proxy=modal.Proxy.from_name("none"))
    raises(exception.NotFoundError, create, custom_domain="example.com", containing="example.com")
    raises(exception.UnimplementedError, create, experimental_options={"enable_docker": True}, containing="docker")
    raises(exception.InvalidError, create, gpu="ABACUS", containing="gpu")
    raises(exception.InvalidError, create, gpu="T4:9", containing="gpu")
    raises(exception.InvalidError, create, cloud="cumulus", containing="cloud")
    raises(exception.InvalidError, create, region="atlantis", containing="region")


def test_options_regions_runtimes_and_options_without_an_effect_are_accepted() -> None:
    """options: regions, runtimes and options without an effect are accepted"""
    with sandbox(cloud="aws", region=["us-east", "eu-west-1"], runtime="gvisor", verbose=True, experimental_options={"new": 1}) as own:
        equal(sh(own, "echo hi"), ("hi\n", "", 0))


def test_options_an_identity_token_is_provided_on_request() -> None:
    """options: an identity token is provided on request"""
    with sandbox(include_oidc_identity_token=True) as own:
        token = sh(own, "echo $MODAL_IDENTITY_TOKEN")[0].strip()
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        assert claims["exp"] > claims["iat"], claims
    with sandbox() as own:
        equal(sh(own, "echo $MODAL_IDENTITY_TOKEN")[0], "\n")


def test_options_a_part_of_a_volume_is_mounted_and_links_cannot_leave_it() -> None:
    """options: a part of a volume is mounted, and links cannot leave it"""
    volume = modal.Volume.from_name(f"vol-{uuid.uuid4().hex[:12]}", create_if_missing=True)
    with sandbox(volumes={"/v": volume}) as one, sandbox(volumes={"/part": volume.with_mount_options(sub_path="a/b")}) as two:
        sh(two, "echo part > /part/f")
        one.reload_volumes()
        equal(sh(one, "cat /v/a/b/f")[0], "part\n")
        sh(one, "ln -s / /v/root")
        one.reload_volumes()
    with sandbox("sleep", "60", volumes={"/v": volume.with_mount_options(sub_path="root")}) as three:
        three.wait(raise_on_termination=False)
        assert three.returncode not in (0, None), three.returncode


def test_options_sidecars_get_the_memory_that_is_reserved_for_them() -> None:
    """options: sidecars get the memory that is reserved for them"""
    with sandbox(experimental_options={"vm_sidecar_memory_reserve_mib": 256}) as own:
        manager = own._experimental_sidecars
        image = modal.Image.debian_slim().build(app())
        one = manager.create("sleep", "60", name="one", image=image, experimental_memory_reserve_consume_mib=64)
        raises(
            exception.ResourceExhaustedError,
            manager.create,
            "sleep",
            name="two",
            image=image,
            experimental_memory_reserve_consume_mib=200,
            containing="192 MiB",
        )
        one.terminate(wait=True)
        manager.create("sleep", "60", name="two", image=image, experimental_memory_reserve_consume_mib=200)


def test_options_sidecars_have_volumes_buckets_and_an_identity_token_but_nothing_else() -> None:
    """options: sidecars have volumes, buckets and an identity token, but nothing else"""
    volume = modal.Volume.from_name(f"vol-{uuid.uuid4().hex[:12]}", create_if_missing=True)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    with sandbox(volumes={"/v": volume, "/b": bucket(name)}) as own:
        side = own._experimental_sidecars.create(
            "sleep",
            "60",
            name="s",
            image=modal.Image.debian_slim().build(app()),
            volumes={"/sv": volume.with_mount_options(sub_path="part"), "/sb": bucket(name)},
            include_oidc_identity_token=True,
        )
        process = side.exec("sh", "-c", "echo v > /sv/f; echo b > /sb/f; echo $MODAL_IDENTITY_TOKEN | tr -cd . | wc -c")
        equal((process.stdout.read(), process.wait()), ("2\n", 0))
        own.reload_volumes()
        equal(sh(own, "cat /v/part/f /b/f")[0], "v\nb\n")
        raises(
            exception.NotFoundError,
            own._experimental_sidecars.create,
            name="p",
            image=modal.Image.debian_slim().build(app()),
            proxy=modal.Proxy.from_name("none"),
        )
