containerd_version=2.3.4
runc_version=1.4.3
case "$arch" in
amd64)
    containerd_sha256=9d68969855fbf676cdb8ed758e420fb048d61f984f61de3e53eddfebe484d168
    runc_sha256=f6ae8efc0fa40079e1475e97cbe9d1bd3f106a28d6af78a11d9f1bd565515e60
    ;;
arm64)
    containerd_sha256=a985fbb7e18fc0362d31a055338f5d7b0e087a3e27f14c70d1c5965399a29f95
    runc_sha256=633301e2e32f8a5ad54031aab4901eb00308bec677dd15faa2751e8f9dab5ca4
    ;;
esac

export DEBIAN_FRONTEND=noninteractive

apt_get() {
    apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"
}

have() {
    for name in "$@"; do
        command -v "$name" >/dev/null || return 1
    done
}

install_tools() {
    apt_get update &&
        apt_get install --no-install-recommends ca-certificates conntrack curl ethtool iptables socat
}

install_containerd() {
    releases=https://github.com/containerd/containerd/releases/download
    verified "$releases/v$containerd_version/containerd-$containerd_version-linux-$arch.tar.gz" \
        "$work/containerd.tar.gz" "$containerd_sha256" &&
        verified "https://github.com/opencontainers/runc/releases/download/v$runc_version/runc.$arch" \
            "$work/runc" "$runc_sha256" &&
        tar -C /usr/local -xzf "$work/containerd.tar.gz" &&
        install -m 755 "$work/runc" /usr/local/sbin/runc
}

# repository MINOR: Kubernetes' packages of one minor version, whose signatures apt checks.
repository() {
    url="https://pkgs.k8s.io/core:/stable:/v$1/deb/"
    key="/etc/apt/keyrings/kubernetes-$1.asc"
    mkdir -p /etc/apt/keyrings &&
        download "${url}Release.key" "$key" &&
        printf 'deb [signed-by=%s] %s /\n' "$key" "$url" >"/etc/apt/sources.list.d/kubernetes-$1.list"
}

install_kubernetes() {
    repository "${kubeadm_version%.*}" &&
        repository "${kubelet_version%.*}" &&
        apt_get update &&
        apt_get install --no-install-recommends --allow-change-held-packages --allow-downgrades \
            "kubeadm=$kubeadm_version-*" "kubectl=$kubeadm_version-*" "kubelet=$kubelet_version-*" kubernetes-cni
}

work=$(mktemp -d)
have conntrack curl ethtool iptables socat || attempt 5 install_tools || fail "apt-get gives no packages"
if [ "$(containerd --version 2>/dev/null | cut -d ' ' -f 3)" != "v$containerd_version" ]; then
    attempt 5 install_containerd || fail "containerd $containerd_version cannot be had"
fi
right_versions || attempt 5 install_kubernetes || fail "Kubernetes' packages cannot be had"
right_versions || fail "kubelet or kubeadm are not of the version that was asked for"
apt-mark hold kubeadm kubectl kubelet
rm -rf "$work"

systemctl daemon-reload
systemctl enable containerd kubelet
systemctl restart containerd
