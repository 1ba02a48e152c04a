say() {
    printf 'fleetwright: %s\n' "$*"
}

fail() {
    printf 'fleetwright: %s\n' "$*" >&2
    exit 1
}

# attempt TIMES COMMAND...: until it succeeds, with pauses that grow to a minute.
attempt() {
    left=$1
    shift
    pause=2
    until "$@"; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then
            return 1
        fi
        say "$1 failed, again in $pause s ($left more)"
        sleep "$pause"
        pause=$((pause * 2))
        if [ "$pause" -gt 60 ]; then
            pause=60
        fi
    done
}

# download URL FILE: over HTTPS, whole or not at all.
download() {
    curl --fail --silent --show-error --location --proto '=https' --output "$2.part" "$1" &&
        mv "$2.part" "$2"
}

# verified URL FILE SHA256
verified() {
    download "$1" "$2" && printf '%s  %s\n' "$3" "$2" | sha256sum --check --status
}

mark() {
    mkdir -p "$(dirname "$bootstrapped")" "$(dirname "$success")"
    : >"$bootstrapped"
    echo success >"$success"
}

# /run is empty after each start of the instance.
if [ -e "$bootstrapped" ]; then
    mark
    exit 0
fi

case "$(uname -m)" in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) fail "no binaries for $(uname -m)" ;;
esac

right_versions() {
    [ "$(kubelet --version 2>/dev/null)" = "Kubernetes v$kubelet_version" ] &&
        [ "$(kubeadm version --output short 2>/dev/null)" = "v$kubeadm_version" ]
}

swapoff -a
if [ -e /etc/fstab ]; then
    sed -i '/^[^#].*[[:space:]]swap[[:space:]]/ s/^/#/' /etc/fstab
fi
modprobe overlay
modprobe br_netfilter
sysctl --quiet -p /etc/sysctl.d/99-fleetwright.conf
