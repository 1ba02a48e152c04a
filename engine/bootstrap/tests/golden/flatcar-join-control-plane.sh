#!/bin/sh
# Writes the files of this instance and runs what makes it a node. It holds secrets.
set -eu
umask 077

# put PATH MODE OWNER CONTENT: whole or not at all.
put() {
    (umask 022 && mkdir -p "$(dirname "$1")")
    printf '%s' "$4" >"$1.new"
    chown "$3" "$1.new"
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}

put '/etc/modules-load.d/fleetwright.conf' 0644 'root:root' 'overlay
br_netfilter
'
put '/etc/sysctl.d/99-fleetwright.conf' 0644 'root:root' 'net.bridge.bridge-nf-call-ip6tables = 1
net.bridge.bridge-nf-call-iptables = 1
net.ipv4.ip_forward = 1
'
put '/etc/systemd/system/kubelet.service' 0644 'root:root' '[Unit]
Description=kubelet: the node agent of Kubernetes
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target containerd.service
StartLimitIntervalSec=0

[Service]
ExecStart=/opt/bin/kubelet
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
'
put '/etc/systemd/system/kubelet.service.d/10-kubeadm.conf' 0644 'root:root' '[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# kubeadm writes flags of this node there.
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=
ExecStart=/opt/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
'
put '/etc/kubernetes/pki/ca.crt' 0644 'root:root' '-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUMQKApa41VswjsVyArc+IRXd+jX0wCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMzAyMDQ5MDJaGA8yMTI2MTEw
NjIwNDkwMlowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABL7A8bs+RpWEb9Py+AvXgLfVJ/fxjq2hSf9pIfwvgAwR3fs8YXTq
cWUTxXZlT9n5bZ2hSdZky1x1sQkIgLV+a8ujUzBRMB0GA1UdDgQWBBTggMNBH8Vi
tMtomwD/+ZbCEtqmHTAfBgNVHSMEGDAWgBTggMNBH8VitMtomwD/+ZbCEtqmHTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIFsnu5Ewpcwz8AWjySvP
wumvg3BlWkrhVFklnsHnLXNyAiEAnljPYZnO1yDRgr0DCXLIIYwCKxKAVtsBkE2T
/aNnizY=
-----END CERTIFICATE-----
'
put '/etc/kubernetes/pki/ca.key' 0600 'root:root' 'key of the cluster
'
put '/etc/kubernetes/pki/etcd/ca.crt' 0644 'root:root' 'certificate of etcd
'
put '/etc/kubernetes/pki/etcd/ca.key' 0600 'root:root' 'key of etcd
'
put '/etc/kubernetes/pki/front-proxy-ca.crt' 0644 'root:root' 'certificate of the front proxy
'
put '/etc/kubernetes/pki/front-proxy-ca.key' 0600 'root:root' 'key of the front proxy
'
put '/etc/kubernetes/pki/sa.pub' 0644 'root:root' 'public key of service accounts
'
put '/etc/kubernetes/pki/sa.key' 0600 'root:root' 'private key of service accounts
'
put '/etc/fleetwright/kubeadm.yaml' 0600 'root:root' 'apiVersion: kubeadm.k8s.io/v1beta4
controlPlane:
  localAPIEndpoint:
    bindPort: 6443
discovery:
  bootstrapToken:
    apiServerEndpoint: lb.example.org:6443
    caCertHashes:
    - sha256:0959dd7fdd1a29fb373c6a2bd72247dc056c4b1eedc7ca28dfc6876f4a8e7ebd
    token: abcdef.0123456789abcdef
kind: JoinConfiguration
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
  kubeletExtraArgs:
  - name: cloud-provider
    value: external
  - name: node-labels
    value: pool=web
  - name: provider-id
    value: __FLEETWRIGHT_PROVIDER_ID__
  - name: volume-plugin-dir
    value: /opt/libexec/kubernetes/kubelet-plugins/volume/exec/
  name: prod-web-1
  taints:
  - effect: NoSchedule
    key: node-role.kubernetes.io/control-plane
  - effect: NoExecute
    key: dedicated
    value: web
'
put '/etc/fleetwright/bootstrap.sh' 0700 'root:root' '#!/bin/sh
# Makes this instance a node of its cluster.
set -eu
umask 022

kubeadm_version='\''1.33.2'\''
kubelet_version='\''1.32.6'\''
kubeadm_config='\''/etc/fleetwright/kubeadm.yaml'\''
bootstrapped='\''/var/lib/fleetwright/bootstrapped'\''
success='\''/run/cluster-api/bootstrap-success.complete'\''
action=join_control_plane

provider_id() {
    printf '\''%s'\'' "aws:///$(zone)/$(instance)"
}
provider_id_placeholder='\''__FLEETWRIGHT_PROVIDER_ID__'\''

say() {
    printf '\''fleetwright: %s\n'\'' "$*"
}

fail() {
    printf '\''fleetwright: %s\n'\'' "$*" >&2
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
    curl --fail --silent --show-error --location --proto '\''=https'\'' --output "$2.part" "$1" &&
        mv "$2.part" "$2"
}

# verified URL FILE SHA256
verified() {
    download "$1" "$2" && printf '\''%s  %s\n'\'' "$3" "$2" | sha256sum --check --status
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
    sed -i '\''/^[^#].*[[:space:]]swap[[:space:]]/ s/^/#/'\'' /etc/fstab
fi
modprobe overlay
modprobe br_netfilter
sysctl --quiet -p /etc/sysctl.d/99-fleetwright.conf

# containerd is the system'\''s own, and uses systemd'\''s cgroups.
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
right_versions || attempt 5 install_kubernetes || fail "Kubernetes'\'' binaries cannot be had"
right_versions || fail "kubelet or kubeadm are not of the version that was asked for"
rm -rf "$work"

systemctl daemon-reload
systemctl enable --now containerd
systemctl enable kubelet

# Only what is whole and cannot be anything else than an id is written.
set_provider_id() {
    id=$(provider_id) || return 1
    case "$id" in
    *[!A-Za-z0-9:/._-]* | *://*//* | */) return 1 ;;
    *://?*) ;;
    *) return 1 ;;
    esac
    sed -i "s|^\( *value: \)$provider_id_placeholder\$|\1$id|" "$kubeadm_config"
}

attempt 10 set_provider_id || fail "the instance does not learn its id at the provider"

# Looks at everything and asks the cluster; changes nothing. kubeadm itself waits five minutes for an answer.
reachable() {
    kubeadm join phase preflight --config "$kubeadm_config"
}

join_again() {
    kubeadm join --config "$kubeadm_config" && return 0
    kubeadm reset --force
    return 1
}

case "$action" in
init)
    kubeadm init --config "$kubeadm_config" || fail "kubeadm init failed"
    ;;
join_control_plane)
    attempt 6 reachable || fail "the cluster cannot be joined"
    # A member may be in etcd already: another attempt could make two of it. Who looks after the machine replaces it.
    kubeadm join --config "$kubeadm_config" || fail "kubeadm join failed"
    ;;
join_worker)
    attempt 6 reachable || fail "the cluster cannot be joined"
    attempt 5 join_again || fail "kubeadm join failed"
    ;;
esac

# It holds a token.
rm -f "$kubeadm_config"
mark
say "this instance is a node"
'
/bin/sh /etc/fleetwright/bootstrap.sh
# fleetwright: end of payload
