"""Image builds in detail: the effect of each method of the SDK's image object."""

from collections.abc import Iterator
from typing import Any
import contextlib
import io
import os
import sys
import tarfile
import tempfile

import modal
import modal.experimental
from harness import app, equal, fresh, raises, sandbox, sh
from modal import exception


def base() -> Any:
    return modal.Image.from_registry("debian:bookworm")


def built_with(image: Any, script: str) -> Any:
    with sandbox("sleep", "60", image=image) as own:
        return sh(own, script)


@contextlib.contextmanager
def tree(**files: Any) -> Iterator[str]:
    """Creates a local directory. `__` in a name stands for `/`, and `_DOT_` for a dot."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            path = os.path.join(directory, name.replace("__", "/").replace("_DOT_", "."))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
        yield directory


def from_dockerfile(text: str, **options: Any) -> Any:
    directory = options.pop("context_dir")
    path = os.path.join(directory, "Dockerfile.check")
    with open(path, "w") as file:
        file.write(text)
    return modal.Image.from_dockerfile(path, context_dir=directory, **options)


def test_builds_the_build_log_shows_standard_output_and_standard_error_line_by_line() -> None:
    """builds: the build log shows standard output and standard error line by line"""
    token = fresh("line")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), modal.enable_output():
        base().run_commands(f"echo {token}-1; echo {token}-2 >&2; echo {token}-3").build(app())
    lines = [line.strip() for line in shown.getvalue().splitlines()]
    for number in (1, 2, 3):
        assert f"{token}-{number}" in lines, lines
    assert any("the programs of this machine" in line for line in lines), lines


def test_builds_a_failed_build_shows_its_output_and_names_the_instruction_and_the_exit_code() -> None:
    """builds: a failed build shows its output and names the instruction and the exit code"""
    token = fresh("fails")
    shown = io.StringIO()
    image = base().dockerfile_commands("RUN true", f"RUN echo {token} >&2; exit 41")
    with contextlib.redirect_stdout(shown), modal.enable_output():
        error = raises(exception.RemoteError, image.build, app(), containing="code 41")
    assert f"RUN echo {token}" in str(error) and "line 3" in str(error), error
    assert token in [line.strip() for line in shown.getvalue().splitlines()], shown.getvalue()


def test_builds_copy_of_files_directories_and_patterns_renames_nests_and_replaces_them() -> None:
    """builds: COPY of files, directories and patterns renames, nests and replaces them"""
    with tree(a__1_DOT_txt="1", a__2_DOT_txt="2", a__3_DOT_md="3", a__deep__4_DOT_txt="4", b="b", c="c") as context:
        image = from_dockerfile(
            "FROM debian\n"
            "WORKDIR /w\n"
            "COPY a/*.txt texts/\n"
            "COPY a/[23].* some/\n"
            "COPY a whole\n"
            "COPY b c /both/\n"
            "COPY b renamed\n"
            "COPY ./a/deep/../3.md .\n"
            "COPY c renamed\n",
            context_dir=context,
        )
        script = "find . /both -type f | sort; cat renamed 3.md"
        expected = ["./3.md", "./renamed", "./some/2.txt", "./some/3.md", "./texts/1.txt", "./texts/2.txt"]
        expected += ["./whole/1.txt", "./whole/2.txt", "./whole/3.md", "./whole/deep/4.txt", "/both/b", "/both/c"]
        equal(built_with(image, script)[0], "\n".join(expected) + "\nc3")


def test_builds_copy_of_a_missing_file_or_a_path_outside_the_context_fails_and_says_so() -> None:
    """builds: COPY of a missing file or a path outside the context fails and says so"""
    with tree(a="a") as context:
        for line, says in [
            ("COPY missing /", "missing: not found"),
            ("COPY --from=nowhere.invalid/x a /", "not found"),
            ("COPY --chown=nobody-of-this-name a /", "unknown in the image"),
            ("ADD https://example.com/x /", "does not download files"),
        ]:
            image = modal.Image.from_registry("debian").dockerfile_commands(line, context_dir=context)
            raises(exception.RemoteError, image.build, app(), containing=says)


def test_builds_copy_keeps_modes_and_chmod_and_chown_change_them() -> None:
    """builds: COPY keeps modes, and --chmod and --chown change them"""
    with tree(tool="#!/bin/sh\necho tool\n", plain="x") as context:
        os.chmod(os.path.join(context, "tool"), 0o755)
        os.chmod(os.path.join(context, "plain"), 0o640)
        image = from_dockerfile(
            "FROM debian\nCOPY tool plain /kept/\nCOPY --chmod=700 plain /changed/\nCOPY --chown=root:root plain /owned\n",
            context_dir=context,
        )
        script = "/kept/tool; stat -c '%a %U' /kept/plain /changed/plain /owned"
        equal(built_with(image, script)[0], "tool\n640 root\n700 root\n640 root\n")


def test_builds_add_unpacks_local_archives_and_copy_does_not() -> None:
    """builds: ADD unpacks local archives and COPY does not"""
    with tree(inner="packed") as context:
        with tarfile.open(os.path.join(context, "a.tar.gz"), "w:gz") as archive:
            archive.add(os.path.join(context, "inner"), arcname="d/inner")
        image = from_dockerfile("FROM debian\nADD a.tar.gz /added/\nCOPY a.tar.gz /copied/\n", context_dir=context)
        equal(built_with(image, "cat /added/d/inner; ls /added /copied")[0], "packed/added:\nd\n\n/copied:\na.tar.gz\n")


def test_builds_stages_are_found_by_name_and_by_number_and_only_the_last_one_is_kept() -> None:
    """builds: stages are found by name and by number, and only the last one is kept"""
    with tree(src="source") as context:
        image = from_dockerfile(
            "FROM debian AS compile\n"
            "COPY src /build/src\n"
            "RUN tr a-z A-Z < /build/src > /build/out\n"
            "FROM debian\n"
            "RUN echo from-the-second > /second\n"
            "FROM debian AS final\n"
            "COPY --from=compile /build/out /bin/../usr/out\n"
            "COPY --from=1 /second /second\n"
            "COPY --from=debian:bookworm /etc/hostname /from-image\n",
            context_dir=context,
        )
        out, _, _ = built_with(image, "cat /usr/out /second; test -e /build || echo apart; test -e /from-image && echo too")
        equal(out, "SOURCEfrom-the-second\napart\ntoo\n")


def test_builds_arg_has_defaults_and_build_arguments_env_takes_precedence_and_no_arg_stays() -> None:
    """builds: ARG has defaults and build arguments, ENV takes precedence, and no ARG stays"""
    with tree() as context:
        image = from_dockerfile(
            "ARG TAG=bookworm\nARG GLOBAL=outside\n"
            "FROM debian:$TAG\n"
            "ARG GLOBAL\nARG A=default\nARG B\nENV C=${B:-unset} D=\"$A and $GLOBAL\" E=${A:+yes}${NO:+no}\n"
            "RUN echo $A $B $C > /seen\n",
            context_dir=context,
            build_args={"A": "given"},
        )
        equal(built_with(image, 'cat /seen; echo "$A|$B|$C|$D|$E"')[0], "given unset\n||unset|given and outside|yes\n")


def test_builds_run_and_copy_accept_here_documents_also_with_another_interpreter() -> None:
    """builds: RUN and COPY accept here-documents, also with another interpreter"""
    with tree() as context:
        image = from_dockerfile(
            "FROM debian\n"
            "RUN <<EOF\nset -e\necho one > /one\nEOF\n"
            "RUN <<EOF\n#!/usr/bin/env python3\nopen('/two', 'w').write('two\\n')\nEOF\n"
            "COPY <<-FILE /three\n\t# a comment that stays\n\tthree\nFILE\n",
            context_dir=context,
        )
        equal(built_with(image, "cat /one /two /three")[0], "one\ntwo\n# a comment that stays\nthree\n")


def test_builds_onbuild_runs_in_a_build_that_starts_from_the_image() -> None:
    """builds: ONBUILD runs in a build that starts from the image"""
    first = base().dockerfile_commands("ONBUILD RUN echo later > /later")
    equal(built_with(first, "test -e /later || echo not yet")[0], "not yet\n")
    equal(built_with(first.run_commands("cat /later > /then"), "cat /then")[0], "later\n")


def test_builds_instructions_without_an_effect_in_the_emulator_are_ignored() -> None:
    """builds: instructions without an effect in the emulator are ignored"""
    lines = ["EXPOSE 80", "VOLUME /data", "STOPSIGNAL SIGINT", "HEALTHCHECK CMD true", "MAINTAINER me", 'LABEL a="b c"']
    equal(built_with(base().dockerfile_commands(*lines, "RUN echo done > /done"), "cat /done")[0], "done\n")


def test_builds_entrypoint_and_cmd_in_both_forms_are_combined_with_a_command_of_the_sandbox() -> None:
    """builds: ENTRYPOINT and CMD in both forms are combined with a command of the sandbox"""
    image = base().dockerfile_commands("ENV WHO=me", "ENTRYPOINT echo shell-form $WHO")
    with sandbox(image=image) as own:
        equal(own.stdout.read(), "shell-form me\n")
    with sandbox("echo", "asked", image=image) as own:
        equal(own.stdout.read(), "shell-form me\n")
    with sandbox("echo", "asked", image=base().dockerfile_commands('ENTRYPOINT ["env", "A=1"]', 'CMD ["false"]')) as own:
        equal(own.stdout.read(), "asked\n")
    with sandbox(image=base().dockerfile_commands('ENTRYPOINT ["/bin/bash"]')) as own:
        equal(sh(own, "echo alive")[0], "alive\n")
    with sandbox("-c", "echo $0 $1", "a", "b", image=base().dockerfile_commands('ENTRYPOINT ["/bin/bash"]')) as own:
        equal(own.stdout.read(), "a b\n")
    with sandbox(image=base().dockerfile_commands('CMD ["one"]', 'ENTRYPOINT ["echo"]')) as own:
        equal(own.stdout.read(), "one\n")
    with sandbox(image=base().dockerfile_commands('CMD ["one"]').dockerfile_commands('ENTRYPOINT ["echo", "alone"]')) as own:
        equal(own.stdout.read(), "alone\n")
    with sandbox(image=base().dockerfile_commands('ENTRYPOINT ["echo", "a"]', "ENTRYPOINT []", 'CMD ["echo", "cmd"]')) as own:
        equal(own.stdout.read(), "cmd\n")


def test_builds_user_switches_to_a_user_with_a_group_and_back() -> None:
    """builds: USER switches to a user with a group and back"""
    image = base().dockerfile_commands("RUN mkdir /d && chmod 777 /d", "USER root", "RUN id -u > /d/root")
    equal(built_with(image, "cat /d/root")[0], "0\n")
    raises(exception.RemoteError, base().dockerfile_commands("USER nobody-of-this-name", "RUN true").build, app())


def test_builds_ignored_files_are_not_in_the_context() -> None:
    """builds: ignored files are not in the context"""
    with tree(keep="k", skip_DOT_log="s", deep__skip_DOT_log="s", deep__keep="k", _DOT_dockerignore="**/*.log\n") as context:
        image = from_dockerfile("FROM debian\nCOPY . /in\n", context_dir=context)
        equal(built_with(image, "cd /in; find . -name '*.log'; ls deep keep")[0], "keep\n\ndeep:\nkeep\n")
        added = base().add_local_dir(context, "/in", copy=True, ignore=["keep", "deep/keep", ".dockerignore", "Dockerfile*"])
        equal(built_with(added, "cd /in; find . -type f | sort")[0], "./deep/skip.log\n./skip.log\n")


def test_builds_a_changed_file_causes_a_new_build_and_an_unchanged_one_does_not() -> None:
    """builds: a changed file causes a new build and an unchanged one does not"""
    token = fresh("same")
    with tree(f=token) as one, tree(f=token) as two, tree(f=token + "x") as other:
        images = [base().add_local_dir(d, "/in", copy=True).build(app()).object_id for d in (one, two, other)]
    equal(images[0], images[1])
    assert images[0] != images[2]


def test_builds_context_files_of_every_size_arrive_unchanged_inline_and_as_a_blob() -> None:
    """builds: context files of every size arrive unchanged, inline and as a blob"""
    big = os.urandom(1 << 20) * 5
    with tree(empty="", small="s", big=big, deep__er__bytes=bytes(range(256))) as context:
        image = base().add_local_dir(context, "/in", copy=True)
        with sandbox(image=image) as own:
            equal(own.filesystem.read_bytes("/in/big"), big)
            equal(own.filesystem.read_bytes("/in/empty"), b"")
            equal(own.filesystem.read_bytes("/in/deep/er/bytes"), bytes(range(256)))


def test_builds_local_python_modules_can_be_imported() -> None:
    """builds: local Python modules can be imported"""
    with tree(own_module__sub___init___DOT_py="", own_module_DOT_py="VALUE = 42\n") as directory:
        sys.path.insert(0, directory)
        try:
            image = base().add_local_python_source("own_module")
            # The modules are in the directory in which Functions start.
            with sandbox(image=image, workdir="/root") as own:
                equal(own.exec("python3", "-c", "import own_module; print(own_module.VALUE)").stdout.read(), "42\n")
        finally:
            sys.path.remove(directory)


def test_builds_package_installations_really_run_and_fail_without_a_network_with_their_own_output() -> None:
    """builds: package installations really run, and fail without a network with their own output"""
    for image, says in [
        (base().pip_install("modal-no-such-package", extra_options="--no-index"), "modal-no-such-package"),
        (base().pip_install_from_requirements(os.devnull, extra_options="--no-index --frobnicate"), "pip install"),
    ]:
        raises(exception.RemoteError, image.build, app(), containing=says)


def test_builds_the_log_marks_instructions_of_the_default_image_that_are_not_executed() -> None:
    """builds: the log marks instructions of the default image that are not executed"""
    shown = io.StringIO()
    image = modal.Image.debian_slim(force_build=True)
    with contextlib.redirect_stdout(shown), modal.enable_output():
        image.run_commands(f"echo {fresh()} > /after").build(app())
    assert "(skipped: " in shown.getvalue(), shown.getvalue()
    equal(built_with(image.run_commands("echo after > /after"), "cat /after; python -c 'print(1)'")[0], "after\n1\n")


def test_builds_a_registry_image_gets_its_own_python() -> None:
    """builds: a registry image gets its own Python"""
    image = modal.Image.from_registry("ubuntu:24.04", add_python="3.11", setup_dockerfile_commands=["RUN echo setup > /setup"])
    equal(built_with(image, "cat /setup; python -c 'print(1)'")[0], "setup\n1\n")


def test_builds_registries_that_require_a_login_accept_a_secret() -> None:
    """builds: registries that require a login accept a secret"""
    secret = modal.Secret.from_dict({"REGISTRY_USERNAME": "u", "REGISTRY_PASSWORD": "p"})
    for image in (
        modal.Image.from_registry("registry.example/private:1", secret=secret),
        modal.Image.from_aws_ecr("000000000000.dkr.ecr.us-east-1.amazonaws.com/x:1", secret=secret),
        modal.Image.from_gcp_artifact_registry("us-east1-docker.pkg.dev/p/x:1", secret=secret),
    ):
        assert image.build(app()).object_id.startswith("im-")


def test_builds_a_function_can_compose_build_steps() -> None:
    """builds: a function can compose build steps"""

    def setup(image: Any, word: str) -> Any:
        return image.run_commands(f"echo {word} > /word").env({"WORD": word})

    equal(built_with(base().pipe(setup, "piped"), "cat /word; echo $WORD")[0], "piped\npiped\n")


def test_builds_a_volume_is_mounted_during_the_build_and_is_not_in_the_image() -> None:
    """builds: a volume is mounted during the build and is not in the image"""
    volume = modal.Volume.from_name(fresh("vol"), create_if_missing=True)
    with sandbox(volumes={"/v": volume}) as own:
        sh(own, "echo from-volume > /v/f")
    image = base().run_commands("cat /cache/f > /seen", volumes={"/cache": volume})
    equal(built_with(image, "cat /seen; ls -A /cache 2>/dev/null")[0], "from-volume\n")


def step_in_python() -> None:
    pass


def test_builds_a_python_function_as_a_build_step_is_refused_not_ignored() -> None:
    """builds: a Python function as a build step is refused, not ignored"""
    raises(exception.Error, base().run_function(step_in_python).build, app())


def test_builds_a_deleted_image_is_not_found_its_sandboxes_continue_and_a_rebuild_makes_a_new_one() -> None:
    """builds: a deleted image is not found, its sandboxes continue, and a rebuild makes a new one"""
    image = base().run_commands(f"echo {fresh('del')} > /stamp").build(app())
    old = image.object_id
    with sandbox(image=modal.Image.from_id(old)) as own:
        modal.experimental.image_delete(old)
        assert sh(own, "cat /stamp")[0].startswith("del-")
        raises(exception.NotFoundError, modal.Sandbox.create, app=app(), image=modal.Image.from_id(old))
        raises(exception.NotFoundError, modal.experimental.image_delete, old)


def test_builds_a_published_name_has_tags_can_move_to_another_image_and_belongs_to_an_environment() -> None:
    """builds: a published name has tags, can move to another image, and belongs to an environment"""
    name = fresh("named")
    first = base().run_commands("echo 1 > /v").build(app())
    second = base().run_commands("echo 2 > /v").build(app())
    first.publish(name)
    equal(built_with(modal.Image.from_name(name), "cat /v")[0], "1\n")
    second.publish(f"{name}:latest")
    equal(built_with(modal.Image.from_name(f"{name}:latest"), "cat /v")[0], "2\n")
    raises(exception.NotFoundError, modal.Sandbox.create, app=app(), image=modal.Image.from_name(f"{name}:other"))
    raises(exception.InvalidError, first.publish, "no spaces")
