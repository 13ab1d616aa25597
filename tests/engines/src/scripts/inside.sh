# Process 1 of an engine's namespaces: prepares mounts, control groups and the network, and becomes the engine.
#
# Arguments: DIR ROOT ENGINE [ARGUMENT…], see supervise.sh.
set -eu
dir=$1 root=$2 engine=$3
shift 3

# The packages look installed in this namespace only. What the machine has comes first.
mount -t overlay -o "lowerdir=/usr:$root/usr" overlay /usr
# The rules for signatures of images, which podman needs to save an image.
if [ -d "$root/etc/containers" ]; then mount -t overlay -o "lowerdir=/etc:$root/etc" overlay /etc; fi

# containerd creates a folder here.
if [ -d /opt ]; then mount -t tmpfs -o mode=755 tmpfs /opt; fi
# Engines keep sockets, locks and names of namespaces in these folders.
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/lock

# The control groups, seen from the engine's own group.
grep -E '^[^ ]+ [^ ]+ cgroup2? ' /proc/mounts >"$dir/hierarchies"
mount -t sysfs sysfs /sys
if ! grep -q '^[^ ]* /sys/fs/cgroup cgroup2 ' "$dir/hierarchies"; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
fi
while read -r _ point type options _; do
    own=
    for option in $(echo "$options" | tr ',' ' '); do
        case $option in
        rw | ro | nosuid | nodev | noexec | relatime | xattr | clone_children | release_agent=* | nsdelegate | memory_*) ;;
        name=*) own=$own,none,$option ;;
        *) own=$own,$option ;;
        esac
    done
    mkdir -p "$point"
    mount -t "$type" -o "rw$own" cgroup "$point"
    if [ "$type" = cgroup2 ] && [ -s "$point/cgroup.controllers" ]; then
        # A group with processes cannot have controllers for groups below it.
        mkdir "$point/engine"
        while read -r process; do echo "$process" >"$point/engine/cgroup.procs"; done <"$point/cgroup.procs"
        for controller in $(cat "$point/cgroup.controllers"); do
            echo "+$controller" >"$point/cgroup.subtree_control" || true
        done
    fi
done <"$dir/hierarchies"

ip link set lo up
ip addr add "$ENGINES_WORLD/32" dev lo
echo "$ENGINES_PORTS" >/proc/sys/net/ipv4/ip_local_port_range
# The range is small, so a port is used again when its last connection has just ended.
echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse

. "$dir/scripts/$engine.sh"
