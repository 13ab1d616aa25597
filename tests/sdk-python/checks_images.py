"""Images: builds, contexts, caches, snapshots."""

from typing import Any
import os
import tempfile
import uuid

import modal
from harness import app, equal, raises, sandbox, sh, shared
from modal import exception


def base() -> Any:
    return modal.Image.from_registry("debian:bookworm")


def built_with(image: Any, script: Any = "true") -> Any:
    with sandbox(image=image) as own:
        return sh(own, script)


def test_images_the_default_image_has_python() -> None:
    """images: the default image has Python"""
    out, _, code = built_with(None, "python --version && pwd")
    equal(code, 0)
    assert out.startswith("Python 3.") and out.endswith("/\n"), out


def test_images_run_executes_its_command_and_keeps_its_files() -> None:
    """images: RUN executes its command and keeps its files"""
    image = base().run_commands("echo built > /built; mkdir /opt/d", "cat /built > /opt/d/copy")
    equal(built_with(image, "cat /built /opt/d/copy"), ("built\nbuilt\n", "", 0))


def test_images_later_layers_replace_and_delete_files_of_earlier_ones() -> None:
    """images: later layers replace and delete files of earlier ones"""
    image = base().run_commands("echo 1 > /a; echo 1 > /b").run_commands("rm /a; echo 2 > /b")
    equal(built_with(image, "cat /b; test -e /a || echo gone"), ("2\ngone\n", "", 0))


def test_images_env_and_workdir_apply_to_sandboxes_and_to_later_steps() -> None:
    """images: ENV and WORKDIR apply to sandboxes and to later steps"""
    image = base().env({"K": "v w", "Q": "it's"}).workdir("/srv/app").run_commands("pwd > here; echo \"$K\" >> here")
    equal(built_with(image, "echo \"$K|$Q\"; pwd; cat here"), ("v w|it's\n/srv/app\n/srv/app\nv w\n", "", 0))


def test_images_a_failing_run_fails_the_build_and_is_named() -> None:
    """images: a failing RUN fails the build and is named"""
    image = base().run_commands("echo something goes wrong; exit 9")
    error = raises(Exception, modal.Sandbox.create, app=app(), image=image, containing="exit 9")
    assert "code 9" in str(error), error


def test_images_a_registry_image_that_does_not_exist_is_an_error() -> None:
    """images: a registry image that does not exist is an error"""
    image = modal.Image.from_registry("does-not-exist:1")
    raises(Exception, modal.Sandbox.create, app=app(), image=image, containing="not found")


def test_images_an_invalid_image_name_is_refused() -> None:
    """images: an invalid image name is refused"""
    image = modal.Image.from_registry("Not A Name")
    raises(Exception, modal.Sandbox.create, app=app(), image=image, containing="Dockerfile")


def test_images_an_unknown_instruction_fails_the_build_and_its_line_is_named() -> None:
    """images: an unknown instruction fails the build and its line is named"""
    image = base().dockerfile_commands("RUN true", "FROB x")
    raises(Exception, modal.Sandbox.create, app=app(), image=image, containing="line 3: unknown instruction: FROB")


def test_images_the_same_layers_are_the_same_image_and_force_build_builds_again() -> None:
    """images: the same layers are the same image, and force_build builds again"""
    token = uuid.uuid4().hex
    first = base().run_commands(f"echo {token} $(date +%s%N) > /stamp")
    again = base().run_commands(f"echo {token} $(date +%s%N) > /stamp")
    forced = base().run_commands(f"echo {token} $(date +%s%N) > /stamp", force_build=True)
    one, two, three = (built_with(image, "cat /stamp")[0] for image in (first, again, forced))
    equal(one, two)
    assert one != three


def test_images_cmd_and_entrypoint_run_if_no_command_is_given() -> None:
    """images: CMD and ENTRYPOINT run if no command is given"""
    with sandbox(image=base().cmd(["echo", "from-cmd"])) as own:
        equal(own.stdout.read(), "from-cmd\n")
    with sandbox(image=base().entrypoint(["echo", "entry"]).cmd(["and", "cmd"])) as own:
        equal(own.stdout.read(), "entry and cmd\n")


def test_images_shell_changes_the_shell_of_run() -> None:
    """images: SHELL changes the shell of RUN"""
    image = base().shell(["/bin/sh", "-ec"]).run_commands("false; echo not reached > /x || true")
    raises(Exception, modal.Sandbox.create, app=app(), image=image)


def test_images_secrets_are_variables_of_run_and_are_not_kept_in_the_image() -> None:
    """images: secrets are variables of RUN and are not kept in the image"""
    secret = modal.Secret.from_dict({"TOKEN": "s3cret"})
    image = base().run_commands("echo ${#TOKEN} > /length", secrets=[secret])
    equal(built_with(image, "cat /length; echo \"[$TOKEN]\""), ("6\n[]\n", "", 0))


def test_images_a_dockerfile_uses_context_arg_stages_user_and_a_here_document() -> None:
    """images: a Dockerfile uses context, ARG, stages, USER and a here-document"""
    with tempfile.TemporaryDirectory() as directory:
        os.makedirs(os.path.join(directory, "src", "deep"))
        for name, text, mode in (("src/a.txt", "A", 0o644), ("src/deep/b.sh", "#!/bin/sh\necho B\n", 0o755), ("c.txt", "C", 0o600)):
            path = os.path.join(directory, name)
            with open(path, "w") as file:
                file.write(text)
            os.chmod(path, mode)
        path = os.path.join(directory, "Dockerfile")
        with open(path, "w") as file:
            file.write(
                "ARG TAG=bookworm\n"
                "FROM debian:${TAG} AS first\n"
                "ARG WHO=nobody\n"
                "# a comment\n"
                "COPY src /in/\n"
                "COPY c.txt /in/renamed.txt\n"
                "RUN echo $WHO > /in/who \\\n    && cat /in/a.txt >> /in/who\n"
                "FROM debian AS second\n"
                "WORKDIR /out\n"
                "COPY --from=first /in/ ./\n"
                "COPY --from=first /in/deep/b.sh /usr/local/bin/b\n"
                "RUN <<EOF\necho one > heredoc\necho two >> heredoc\nEOF\n"
                'ENTRYPOINT ["/usr/local/bin/b"]\n'
                "LABEL a=b\nEXPOSE 80\n"
            )
        image = modal.Image.from_dockerfile(path, context_dir=directory, build_args={"WHO": "me"})
        with sandbox(image=image) as own:
            equal(own.stdout.read(), "B\n")
        with sandbox("sleep", "60", image=image.entrypoint([])) as own:
            equal(sh(own, "cat who heredoc renamed.txt; stat -c %a deep/b.sh renamed.txt; pwd")[0], "me\nAone\ntwo\nC755\n600\n/out\n")


def test_images_user_sets_the_user() -> None:
    """images: USER sets the user"""
    image = base().dockerfile_commands("RUN echo x > /tmp/x && chown nobody /tmp/x", "USER nobody")
    # An unprivileged emulator has no other users.
    if sh(shared(), "touch /tmp/owned && chown nobody /tmp/owned")[2] == 0:
        equal(built_with(image, "id -un; echo y > /tmp/x && cat /tmp/x; touch /root/z 2>/dev/null || echo no"), ("nobody\ny\nno\n", "", 0))


def test_images_local_files_are_added_at_the_start_or_copied_into_the_image() -> None:
    """images: local files are added at the start or copied into the image"""
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "f"), "w") as file:
            file.write("local")
        with open(os.path.join(directory, "tool"), "w") as file:
            file.write("#!/bin/sh\necho tool\n")
        os.chmod(os.path.join(directory, "tool"), 0o755)
        at_start = base().add_local_dir(directory, "/data/dir").add_local_file(os.path.join(directory, "tool"), "/bin/mytool")
        equal(built_with(at_start, "cat /data/dir/f; mytool; ls -ld /tmp | cut -c1-10"), ("localtool\ndrwxrwxrwt\n", "", 0))
        copied = base().add_local_dir(directory, "/data/dir", copy=True).run_commands("cat /data/dir/f > /seen")
        equal(built_with(copied, "cat /seen"), ("local", "", 0))


def test_images_a_context_file_of_5_mib_is_uploaded_as_a_blob() -> None:
    """images: a context file of 5 MiB is uploaded as a blob"""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "big")
        with open(path, "wb") as file:
            file.write(os.urandom(16) * (5 << 16))
        image = base().add_local_file(path, "/big", copy=True)
        equal(built_with(image, "stat -c %s /big"), (f"{5 << 20}\n", "", 0))


def test_images_an_image_is_found_by_its_id_and_an_unknown_id_is_an_error() -> None:
    """images: an image is found by its id, and an unknown id is an error"""
    image = base().run_commands("echo x > /by-id").build(app())
    equal(built_with(modal.Image.from_id(image.object_id), "cat /by-id"), ("x\n", "", 0))
    unknown = modal.Image.from_id("im-0000000000000000000000")
    raises(exception.NotFoundError, modal.Sandbox.create, app=app(), image=unknown)


def test_snapshots_an_image_contains_changed_files_and_lacks_deleted_ones() -> None:
    """snapshots: an image contains changed files and lacks deleted ones"""
    image = base().run_commands("echo old > /changed; echo old > /deleted; mkdir /dir; : > /dir/x")
    with sandbox(image=image) as own:
        sh(own, "echo new > /changed; rm /deleted; echo n > /new; rm -r /dir; mkdir /dir; ln -s /new /link; chmod 700 /new")
        taken = own.snapshot_filesystem()
        sh(own, "echo later > /new")
    script = "cat /changed /new; test -e /deleted || echo gone; ls -A /dir; readlink /link; stat -c %a /new"
    equal(built_with(taken, script), ("new\nn\ngone\n/new\n700\n", "", 0))


def test_snapshots_snapshots_and_builds_can_be_stacked() -> None:
    """snapshots: snapshots and builds can be stacked"""
    with sandbox(image=base()) as own:
        sh(own, "echo 1 > /one")
        first = own.snapshot_filesystem()
    with sandbox(image=first) as own:
        sh(own, "echo 2 > /two")
        second = own.snapshot_filesystem()
    equal(built_with(second, "cat /one /two"), ("1\n2\n", "", 0))
    third = modal.Image.from_id(second.object_id).run_commands("cat /one /two > /three")
    equal(built_with(third, "cat /three"), ("1\n2\n", "", 0))


def test_images_an_image_from_scratch_contains_only_what_was_added() -> None:
    """images: an image from scratch contains only what was added"""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "f")
        with open(path, "w") as file:
            file.write("alone")
        image = modal.Image.from_scratch().add_local_file(path, "/only/f", copy=True)
        taken = image.build(app())
        assert taken.object_id.startswith("im-")


def test_images_a_published_image_is_found_by_its_name() -> None:
    """images: a published image is found by its name"""
    name = f"pub-{uuid.uuid4().hex[:10]}"
    image = base().run_commands("echo p > /p").build(app())
    image.publish(f"{name}:v1")
    found = modal.Image.from_name(f"{name}:v1")
    equal(built_with(found, "cat /p"), ("p\n", "", 0))
