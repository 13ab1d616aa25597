"""Hostile sandboxes: they must not affect the machine or other sandboxes."""

from collections.abc import Iterator
from typing import Any
import contextlib
import os
import pathlib
import shutil
import socket
import ssl
import tempfile
import time

from harness import equal, raises, sandbox, sh
from modal import exception


def machine() -> dict[str, Any]:
    """Returns properties of this machine, on which the emulator runs, that a sandbox must not change."""
    seen: dict[str, Any] = {"name": socket.gethostname(), "cwd": sorted(os.listdir("/"))}
    for place in ("/dev", "/proc", "/proc/sys/kernel", "/etc", "/usr/bin", "/root", "/home", "/opt"):
        for entry in os.scandir(place) if os.path.isdir(place) else ():
            # Terminals come and go, and so do files that another run of these checks plants.
            volatile = "planted-" if place != "/dev" else ("tty", "pts")
            if not entry.name.isdigit() and not entry.name.startswith(volatile):
                found = entry.stat(follow_symlinks=False)
                seen[entry.path] = (found.st_mode, found.st_uid, found.st_gid)
    for place in ("/etc/passwd", "/etc/hosts", "/proc/sys/kernel/printk", "/proc/sys/vm/swappiness", "/proc/modules"):
        with contextlib.suppress(OSError):
            seen[f"content of {place}"] = pathlib.Path(place).read_text()
    return seen


@contextlib.contextmanager
def unharmed() -> Iterator[Any]:
    """Yields a sandbox to attack from. Afterwards checks that the machine has not changed and another sandbox works."""
    before = machine()
    with sandbox() as bystander:
        equal(sh(bystander, "echo mine > /tmp/mine; sleep 1000 >/dev/null 2>&1 & echo $!")[2], 0)
        with sandbox() as own:
            yield own
        equal(sh(bystander, "cat /tmp/mine; grep -la '^sleep' /proc/[0-9]*/cmdline | wc -l")[0], "mine\n2\n")
        after = machine()
        changed = {name: (before.get(name), after.get(name)) for name in before | after if before.get(name) != after.get(name)}
        equal(changed, {})


def test_robust_a_sandbox_cannot_write_remove_or_change_files_of_the_machine() -> None:
    """robust: a sandbox cannot write, remove or change files of the machine"""
    script = """
        for path in /proc/sys/kernel/printk /proc/sys/vm/swappiness /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/mtrr \
            /proc/irq/default_smp_affinity /proc/pressure/memory /sys/kernel/x /sys/fs/cgroup/x; do
            (echo 1 > $path) 2>/dev/null && echo "written: $path"
        done
        for path in /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /proc/cpuinfo /proc/meminfo /proc/uptime \
            /proc/mtrr /proc/sys /proc/kcore /proc/keys /proc/acpi /__modal /__modal/.bin/modal-sandbox-fs-tools; do
            # The mode stays the same, so that a success does not harm the machine.
            chmod $(stat -c %a $path) $path 2>/dev/null && echo "mode changed: $path"
            chown $(stat -c %u:%g $path) $path 2>/dev/null && echo "owner changed: $path"
            touch -r $path $path 2>/dev/null && echo "time changed: $path"
        done
        rm -rf /etc /opt /var /root /home /srv /bin/* /boot 2>/dev/null
        echo done
    """
    with unharmed() as own:
        equal(sh(own, script)[0], "done\n")


def test_robust_a_sandbox_cannot_use_device_files() -> None:
    """robust: a sandbox cannot use device files"""
    script = """
        mknod /tmp/disk b 8 0; mknod /tmp/mem c 1 1; mknod /dev/kmsg c 1 11; ls /dev /tmp
    """
    with unharmed() as own:
        out = sh(own, script)[0].split()
        assert not {"disk", "mem", "kmsg"} & set(out), out


def test_robust_a_sandbox_can_kill_only_its_own_processes() -> None:
    """robust: a sandbox can kill only its own processes"""
    with unharmed() as own:
        # The entry point is killed first and ends the sandbox, so the verdict of the command may not be available any
        # more.
        try:
            equal(own.exec("sh", "-c", "kill -9 -1; kill -9 1; kill -9 $$").wait(), 137)
        except exception.NotFoundError as error:
            assert "has already shut down" in str(error), error
        # The entry point was killed too, so the sandbox ends.
        own.wait(raise_on_termination=False)
        equal(own.returncode, 137)


def test_robust_a_sandbox_runs_1000_processes_and_a_fork_bomb_ends_at_the_limit() -> None:
    """robust: a sandbox runs 1000 processes, and a fork bomb ends at the limit"""
    with unharmed() as own:
        # Counts the process ids that the shell printed, because some processes have not executed `sleep` yet.
        thousand = """
            for i in $(seq 1000); do sleep 60 & pids="$pids $!"; done
            for pid in $pids; do kill -0 $pid && n=$((n + 1)); done
            echo $n
            kill $pids
        """
        equal(sh(own, thousand)[0], "1000\n")
        refused = "import os,time\nwhile True:\n  try:\n    pid = os.fork()\n  except OSError: print('full'); break\n  if not pid: time.sleep(1000)\n"
        equal(own.exec("python3", "-c", refused).stdout.read(), "full\n")
        with sandbox() as other:
            equal(sh(other, "echo works"), ("works\n", "", 0))
        own.terminate(wait=True)


def test_robust_a_sandbox_cannot_mount_unmount_or_leave_its_root() -> None:
    """robust: a sandbox cannot mount, unmount or leave its root"""
    script = """
        mount -t tmpfs none /mnt && echo mounted
        mount --bind / /mnt && echo bound
        umount /proc/sys && echo uncovered
        umount -l /dev/null && echo uncovered
        unshare -m true && echo namespace
        mount -o remount,rw /proc/sys && echo remounted
        unshare -Ur mount -o remount,rw,bind /proc/sys && echo remounted in a namespace
        unshare -Ur umount /proc/sys && echo uncovered in a namespace
        unshare -UrpfC mount -t cgroup2 none /mnt && echo groups
        unshare -UrpfC mount -t cgroup -o pids none /mnt && echo groups
        chroot /proc/1/root true && echo root
        echo done
    """
    with unharmed() as own:
        equal(sh(own, script)[0], "done\n")


def test_robust_a_sandbox_cannot_change_host_names_clocks_modules_traces_or_keys() -> None:
    """robust: a sandbox cannot change host names, clocks, modules, traces or keys"""
    script = """
        hostname other && echo renamed
        # The time stays the same, so that a success does not harm the machine.
        date -s @$(date +%s) >/dev/null && echo another time
        python3 - <<'P'
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if libc.syscall(*args) >= 0:
        print("done:", name)
call("init_module", 175, b"", 0, b"")
call("delete_module", 176, b"loop", 0)
call("clock_settime", 227, 0, (ctypes.c_long * 2)(int(time.time()), 0))
call("sethostname", 170, b"x", 1)
call("reboot", 169, 0xfee1dead, 672274793, 0, 0)
call("swapoff", 168, b"/dev/vda")
call("acct", 163, b"/tmp/acct")
call("ptrace init", 101, 16, 1, 0, 0)
call("kcmp", 312, 1, os.getpid(), 0, 0, 0)
call("quotactl", 179, 0, b"/dev/vda", 0, 0)
call("pivot_root", 155, b"/tmp", b"/tmp")
P
        echo done
    """
    with unharmed() as own:
        equal(sh(own, script)[0], "done\n")


def test_robust_memory_and_dev_shm_beyond_the_limit_end_a_sandbox_with_a_report() -> None:
    """robust: memory and /dev/shm beyond the limit end a sandbox with a report"""
    with sandbox("sh", "-c", "dd if=/dev/zero of=/dev/shm/fill bs=1M", memory=(64, 64), timeout=60) as own:
        own.wait(raise_on_termination=False)
        equal(own.returncode, 137)


def test_robust_memory_beyond_the_limit_ends_the_process_or_the_sandbox_if_it_is_the_entry_point() -> None:
    """robust: memory beyond the limit ends the process, or the sandbox if it is the entry point"""
    hog = "x = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('had it')"
    with sandbox(memory=(64, 64)) as own:
        process = own.exec("python3", "-c", hog)
        equal((process.stdout.read(), process.wait()), ("", 137))
        # The sandbox itself continues to run.
        equal(sh(own, "echo hi"), ("hi\n", "", 0))
    with sandbox("python3", "-c", hog, memory=(64, 64)) as own:
        own.wait(raise_on_termination=False)
        equal(own.returncode, 137)


def test_robust_a_processor_limit_is_enforced() -> None:
    """robust: a processor limit is enforced"""
    busy = "timeout 1 sh -c 'while :; do :; done'; awk '{print $16 + $17}' /proc/self/stat"
    with sandbox(cpu=(0.1, 0.1)) as own:
        # A tenth of a processor for one second is 10 ticks. A whole processor would be 100.
        spent = float(sh(own, f"({busy})")[0])
        assert spent < 50, spent


def test_privacy_private_files_of_the_machine_are_invisible() -> None:
    """privacy: private files of the machine are invisible"""
    word = f"planted-{os.urandom(8).hex()}"
    with contextlib.ExitStack() as planted:
        places = ["/root", "/home", "/tmp", "/var/tmp", "/var/lib", "/var/log", "/run", "/srv", "/mnt", "/media", "/etc", "/etc/ssl/private", "/etc/ssh"]
        for place in places:
            if os.path.isdir(place) and os.access(place, os.W_OK):
                # Readable by every user, so that only its location hides it.
                path = pathlib.Path(tempfile.mkdtemp(prefix="planted-", dir=place))
                path.chmod(0o755)
                (path / "secret").write_text(word)
                planted.callback(shutil.rmtree, path)
        os.environ["PLANTED"] = word
        with sandbox() as own, sandbox() as other:
            sh(other, f"for place in /tmp /usr /dev/shm; do echo {word} > $place/planted-other; done")
            names = "find / /usr /etc /dev -xdev -name 'planted-*' 2>/dev/null"
            equal(sh(own, names)[0], "")
            # Searches the environments of all processes and all small files outside the folders of programs.
            search = f"cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c {word[8:]}; grep -rlsI {word} /etc /opt /var /root /home /tmp /run /srv /mnt /media"
            equal(sh(own, search)[0], "0\n")
    del os.environ["PLANTED"]


def test_privacy_keys_password_hashes_and_the_emulators_environment_are_invisible() -> None:
    """privacy: keys, password hashes and the emulator's environment are invisible"""
    script = """
        cat /etc/shadow /etc/gshadow /etc/shadow- /etc/gshadow- 2>/dev/null | grep '[$]'
        ls -A /etc/ssh /etc/ssl/private /etc/sudoers.d /etc/NetworkManager /etc/wpa_supplicant /etc/docker /etc/kubernetes 2>/dev/null
        find /etc -name '*.key' -o -name '*id_rsa*' -o -name 'krb5.keytab' -o -name '.pgpass' -o -name 'sudoers'
        cat /etc/machine-id
        cat /proc/1/environ /proc/1/cmdline /proc/1/maps 2>/dev/null | tr -d '\\0' | grep -v '^modal-emulator-init$'
        readlink /proc/1/fd/* /proc/1/cwd /proc/1/root /proc/1/exe
        env | grep -i modal_token
        echo done
    """
    with sandbox() as own:
        equal(sh(own, script)[0], "done\n")


PROGRAMS = {
    "python3": ("python3 -c 'import getpass, mimetypes; print(getpass.getuser(), mimetypes.guess_type(\"a.html\")[0])'", "root text/html\n"),
    "gcc": ("cd /tmp && echo 'int main(void){return 7;}' > a.c && gcc a.c -o a && ./a; echo $?", "7\n"),
    "git": ("git init -q /r && cd /r && git -c user.name=n -c user.email=e commit -q --allow-empty -m m && git log --format=%s", "m\n"),
    "perl": ("perl -MPOSIX -e 'print strftime(\"%Y\", gmtime(0))'", "1970"),
    "openssl": ("openssl version -d | grep -c ssl", "1\n"),
    "curl": ("curl -sS file:///etc/hostname", "modal\n"),
    "apt-config": ("apt-config dump | grep -c '^APT::Architecture '", "1\n"),
    "ldconfig": ("ldconfig -p | grep -q libc.so && echo found", "found\n"),
    "getent": ("getent passwd root | cut -d: -f1,6; getent hosts localhost | wc -l", "root:/root\n1\n"),
    "awk": ("awk 'BEGIN { print 1 }'", "1\n"),
    "java": ("java -version 2>&1 | grep -c Runtime", "1\n"),
}


def test_privacy_the_programs_of_the_machine_find_the_files_that_they_need() -> None:
    """privacy: the programs of the machine find the files that they need"""
    with sandbox() as own:
        for name, (script, wanted) in PROGRAMS.items():
            if shutil.which(name):
                out, err, _ = sh(own, script)
                assert out == wanted, (name, out, err)
        trusted = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
        here = len(ssl.create_default_context().get_ca_certs())
        equal(own.exec("/usr/bin/env", "python3", "-c", trusted).stdout.read(), f"{here}\n")


def test_robust_the_processes_and_names_of_an_ended_sandbox_are_released() -> None:
    """robust: the processes and names of an ended sandbox are released"""
    name = f"n{time.time_ns()}"
    for _ in range(3):
        with sandbox("sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 3", name=name) as own:
            own.wait()
            equal(own.returncode, 3)


def test_robust_files_of_an_ended_sandbox_are_not_in_a_later_one() -> None:
    """robust: files of an ended sandbox are not in a later one"""
    with sandbox() as own:
        sh(own, "echo x > /usr/share/left; mkdir /left; echo x > /root/left")
        own.terminate(wait=True)
    with sandbox() as other:
        equal(sh(other, "find / -xdev -name left 2>/dev/null")[0], "")
        raises(exception.NotFoundError, own.exec, "true")
