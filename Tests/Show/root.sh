# Shared by core-1's scripts; sourced, never run. A bare Debian 12 in a folder, without Swift and with /proc.

bare_root() { # folder
    command -v debootstrap >/dev/null || { apt-get update -qq; apt-get install -y -qq debootstrap; } >/dev/null 2>&1
    local mirror log=$1.log
    # Where this machine gets its packages from; either file may be missing.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -nE 's/^(deb|URIs:) *(\[[^]]*\] *)?(https?:[^ ]+).*/\3/p' | head -n 1) || true
    [ -n "$mirror" ] || { echo "FAIL  no package source in /etc/apt to make the bare root from"; return 1; }
    debootstrap --variant=minbase --include=libssl3,libsqlite3-0 bookworm "$1" "$mirror" >"$log" 2>&1 || {
        echo "FAIL  debootstrap:"
        tail -n 5 "$log"
        return 1
    }
    mount -t proc proc "$1/proc"
    ! chroot "$1" sh -c 'command -v swift' || { echo "FAIL  the root has a Swift"; return 1; }
}

# Before the folder is removed.
leave_root() { umount "$1/proc" 2>/dev/null || true; } # folder
