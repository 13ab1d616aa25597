# Runs one engine in namespaces of its own, and ends it when standard input ends or the engine ends by itself.
#
# Arguments: DIR ROOT ENGINE [ARGUMENT…]. DIR is the folder of the engine; it contains the scripts, and all of it is
# removed at the end. ROOT is the folder with the unpacked packages. ENGINE names the script that starts the engine.
set -u
trap '' HUP INT TERM
dir=$1 root=$2
shift 2
group=engines-$(basename "$dir")

# The mount points of all control group hierarchies.
hierarchies() {
    while read -r _ point type _; do
        case $type in cgroup | cgroup2) echo "$point" ;; esac
    done </proc/mounts
}

# The groups are the root of the engine's view of the control groups, and contain those of its containers.
for point in $(hierarchies); do
    mkdir "$point/$group" || continue
    if [ -e "$point/cpuset.mems" ] && [ ! -e "$point/cgroup.controllers" ]; then
        cat "$point/cpuset.cpus" >"$point/$group/cpuset.cpus"
        cat "$point/cpuset.mems" >"$point/$group/cpuset.mems"
    fi
done

# Background commands have no standard input, so the watch below reads a copy.
exec 3<&0 </dev/null
(
    # A program that inherits an ignored signal goes on to ignore it.
    trap - HUP INT TERM
    exec 3<&-
    self=$(exec sh -c 'echo $PPID')
    for point in $(hierarchies); do
        if [ -d "$point/$group" ]; then echo "$self" >"$point/$group/cgroup.procs"; fi
    done
    # The engine and its containers end with process 1 of their namespace, which ends with `unshare`. `unshare` ends
    # with this script.
    exec setpriv --pdeathsig KILL unshare --mount --pid --net --cgroup --ipc --fork --kill-child --mount-proc \
        sh "$dir/scripts/inside.sh" "$dir" "$root" "$@"
) &
engine=$!
echo "$engine" >"$dir/pid.new" && mv "$dir/pid.new" "$dir/pid"
(
    cat <&3 >/dev/null
    kill -KILL "$engine"
) 2>/dev/null &
watch=$!
exec 3<&-
wait "$engine"
kill -KILL "$watch" 2>/dev/null

# A group can be removed when its last process has ended.
tries=0
for point in $(hierarchies); do
    while [ -d "$point/$group" ] && [ $tries -lt 600 ]; do
        find "$point/$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        tries=$((tries + 1))
        sleep 0.05
    done
done
rm -rf "$dir"
