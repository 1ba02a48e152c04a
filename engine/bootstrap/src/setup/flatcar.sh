# containerd is the system's own, and uses systemd's cgroups.
PATH="/opt/bin:$PATH"
export PATH

cni_version=1.9.1
case "$arch" in
amd64) cni_sha256=b98f74a0f8522f0a83867178729c1aa70f2158f90c45a2ca8fa791db1c76b303 ;;
arm64) cni_sha256=56171987d3947707c3563db2f4001bccaf50fd63468611b9f3cbecb1375ee7ec ;;
esac

install_cni() {
    archive="cni-plugins-linux-$arch-v$cni_version.tgz"
    verified "https://github.com/containernetworking/plugins/releases/download/v$cni_version/$archive" \
        "$work/cni.tgz" "$cni_sha256" &&
        tar -C /opt/cni/bin -xzf "$work/cni.tgz"
}

# binary NAME VERSION
binary() {
    url="https://dl.k8s.io/release/v$2/bin/linux/$arch/$1"
    download "$url.sha256" "$work/$1.sha256" &&
        verified "$url" "$work/$1" "$(cat "$work/$1.sha256")" &&
        install -m 755 "$work/$1" "/opt/bin/$1"
}

install_kubernetes() {
    binary kubeadm "$kubeadm_version" &&
        binary kubectl "$kubeadm_version" &&
        binary kubelet "$kubelet_version"
}

work=$(mktemp -d)
mkdir -p /opt/bin /opt/cni/bin
attempt 5 install_cni || fail "CNI plugins $cni_version cannot be had"
right_versions || attempt 5 install_kubernetes || fail "Kubernetes' binaries cannot be had"
right_versions || fail "kubelet or kubeadm are not of the version that was asked for"
rm -rf "$work"

systemctl daemon-reload
systemctl enable --now containerd
systemctl enable kubelet
