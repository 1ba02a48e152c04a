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
